"""Remember in the user's cache what programs found out about engines on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

import glesam_runtime
from glesam_runtime.errors import InputError
from glesam_runtime.machine import cpu_name
from glesam_runtime.staging import staged_file

if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle

_LARGEST = 1 << 20
"""Bytes of checked.json, which has about 100 for each note."""


def key_of(bundle: Bundle, about: Mapping[str, str]) -> str:
    """Return the key of a note on a bundle, "" if it cannot be remembered.

    A program that was packed without its metadata does not know its version.

    Args:
        bundle: the bundle.
        about: what else the note depends on, besides the CPU and the version of this program.
    """
    try:
        program = glesam_runtime.__version__
    except PackageNotFoundError:
        return ""
    identity = {
        "program": program,
        "bundle": bundle.sha256,
        "cpu": cpu_name(),
        **about,
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def remembered() -> dict[str, str]:
    """Return what earlier programs noted, by key."""
    path = _cache_file()
    try:
        if path is None or not path.is_file():  # opening a FIFO would wait for a writer
            return {}
        with path.open("rb") as file:
            known = json.loads(file.read(_LARGEST))  # a longer one is no JSON then
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)}


def remember(known: Mapping[str, str]) -> None:
    """Replace all notes."""
    path = _cache_file()
    if path is None:
        return
    # If the cache cannot be written, the next start checks and measures again.
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path) as partial:
            partial.write_text(json.dumps(dict(known), indent=0))


def _cache_file() -> Path | None:
    """Return the file in the user's cache, by the XDG rules; None if the user has no home.

    Containers often run as a user that has no name, and without HOME.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # by the XDG rules such a path counts as none
        if os.environ.get("HOME") == "":  # pathlib takes it for the root folder
            return None
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            return None
    return base / "glesam" / "checked.json" if base.is_absolute() else None
