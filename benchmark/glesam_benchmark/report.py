"""Writes what was found: text, JSON and a picture under one name, all or none."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from glesam_runtime.staging import staged_file

Draw = Callable[[Any, Path], None]


def as_json(found: Any) -> str:
    """For a reader too; no NaN, no infinity: msgspec writes null."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def write(folder: Path, name: str, found: Any, text: str, draw: Draw | None) -> str:
    """Write `<name>.txt`, `<name>.json` and, where it can be drawn, `<name>.png`.

    Returns:
        A line that says so.

    Raises:
        InputError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"{name}.{ending}" for ending in ("txt", "json", *(["png"] if draw else []))]
    with ExitStack() as stack:
        table, document, *picture = (
            stack.enter_context(staged_file(folder / file)) for file in files
        )
        table.write_text(text + "\n", encoding="utf-8")
        document.write_text(as_json(found), encoding="utf-8")
        if draw is not None:
            draw(found, *picture)
    return f"{folder}: {', '.join(files)}"
