"""The folder of plain exports: whose weights they have, so that they are made once."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from glesam_runtime.bundle import Bundle
from glesam_runtime.errors import InputError

_RECORD = "plain.json"
"""Written last: a folder without it holds nothing that is whole."""
_EXPORTER = Path(__file__).with_name("plain.py")


def is_there(folder: Path, bundle: Bundle) -> bool:
    """Whether the graphs of a bundle's weights are in the folder.

    Raises:
        InputError: it is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--work {folder}: is a file, a folder is needed")
    record = folder / _RECORD
    return record.is_file() and record.read_text(encoding="utf-8") == _record_of(bundle)


def begin(folder: Path) -> None:
    """Make the folder; until `finish` it holds nothing that counts."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).unlink(missing_ok=True)


def finish(folder: Path, bundle: Bundle) -> None:
    """Say whose graphs the folder holds."""
    (folder / _RECORD).write_text(_record_of(bundle), encoding="utf-8")


def _record_of(bundle: Bundle) -> str:
    """Names the weights a bundle was exported from, and what exports them plainly."""
    manifest = bundle.manifest
    facts = {
        "model": str(manifest.model),
        "weights": manifest.provenance.weights,
        "sources": sorted(source.sha256 for source in manifest.provenance.sources),
        "torch": version("torch"),
        "exporter": hashlib.sha256(_EXPORTER.read_bytes()).hexdigest(),
    }
    return json.dumps(facts, indent=2, sort_keys=True)
