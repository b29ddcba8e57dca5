"""The memory of checked engines, checked.json in the user's cache."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..case import Case, Place
from ..damage import nested, sparse


def _at(name: str, change: Callable[[Path], object], **further: Any) -> Case:
    """Return the case of a checked.json that `change` makes; the run must succeed."""

    def make(place: Place) -> list[Any]:
        path = place.home / ".cache" / "glesam" / "checked.json"
        path.parent.mkdir(parents=True)
        change(path)
        return [place.photo(), "--points", "9,9", *place.engine(backend="auto")]

    # The file may be replaced: a sound memory takes its place.
    expected = {"codes": (0,), "notes": True, "changes": ("home",), "seconds": 8, **further}
    return Case("checked.json", name, make, **expected)


def _text(name: str, content: str | bytes) -> Case:
    raw = content if isinstance(content, bytes) else content.encode()
    return _at(name, lambda path: path.write_bytes(raw))


CASES = [
    _at("none", lambda _: None),
    _text("empty", ""),
    _text("null", "null"),
    _text("an array", "[1]"),
    _text("deep arrays", nested(200_000)),
    _text("deep objects", nested(100_000, '{"a":', "}")),
    _text("NaN", '{"a": NaN}'),
    _text("latin-1", b'{"\xe9": ""}'),
    _text("a number of a million digits", f'{{"a": {"9" * 1_000_000}}}'),
    _text("values of other types", json.dumps({f"{n:064x}": [n] for n in range(9)})),
    _at("a FIFO", os.mkfifo),
    _at("a folder", Path.mkdir),
    _at("a link to itself", lambda path: path.symlink_to(path)),
    _at("a link to /dev/zero", lambda path: path.symlink_to("/dev/zero")),
    _at("10 GB of nothing", lambda path: sparse(path, 10 << 30)),
]
