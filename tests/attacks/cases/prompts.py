"""Prompts files: broken JSON, numbers out of range, too many points, and no files at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..case import Case, Place, accepted
from ..damage import cut, flipped, nested, sparse

_SOUND = json.dumps(
    {"prompts": [{"points": [[9, 9], [4, 5]], "labels": [1, 0], "box": [1, 2, 30, 31]}]}
)


def _text(name: str, content: str | bytes, says: str = "prompts.json", **further: Any) -> Case:
    """Return the case of a prompts file with this content."""
    return _made(name, lambda place: place.write("prompts.json", content), says, **further)


def _made(
    name: str, prompts: Callable[[Place], Path | str], says: str = "prompts.json", **further: Any
) -> Case:
    """Return the case of a prompts file that `prompts` makes."""

    def make(place: Place) -> list[Any]:
        return [place.photo(), "--prompts", prompts(place), *place.engine()]

    return Case("prompts", name, make, says, **further)


def _at(name: str, change: Callable[[Path], object], says: str = "prompts", **further: Any) -> Case:
    """Return the case of a path at which `change` makes something else than a file."""

    def prompts(place: Place) -> Path:
        path = place.inputs / "prompts.json"
        change(path)
        return path

    return _made(name, prompts, says, **further)


_TEXTS = [
    "",
    " ",
    "{}",
    "[]",
    "null",
    "true",
    "5",
    '"points"',
    "[[]]",
    "[{}]",
    "[null]",
    '{"prompts": null}',
    '{"prompts": []}',
    '{"prompts": [{"points": [[1, 1]]}], "more": 1}',
    '[{"points": []}]',
    '[{"points": [[]]}]',
    '[{"points": [[1]]}]',
    '[{"points": [[1, 2, 1, 1]]}]',
    '[{"points": [["1", "2"]]}]',
    '[{"points": [[1, 2]], "labels": [1, 1]}]',
    '[{"points": [[1, 2]], "labels": [2]}]',
    '[{"points": [[1, 2]], "labels": [1e300]}]',
    '[{"points": [[1, 2]], "labels": ["1"]}]',
    '[{"points": [[NaN, 1]]}]',
    '[{"points": [[1, -Infinity]]}]',
    '[{"points": [[1e309, 1]]}]',
    '[{"points": [[1e308, 1]]}]',
    '[{"points": [[-1e-9, 1]]}]',
    '[{"points": [[true, false]]}]',
    '[{"points": {"x": 1}}]',
    '[{"box": [1, 2, 3]}]',
    '[{"box": [9, 9, 1, 1]}]',
    '[{"box": [1, 1, 1, 1]}]',
    '[{"box": [0, 0, 1e308, 1e308]}]',
    '[{"box": [NaN, 0, 1, 1]}]',
    '[{"points": [[1, 1]]}, {"points": [[1, 1]], "\\u001b[2J\\u202e": 1}]',
    '[{"points": [[1, 1]]}] [',
    "[{points: [[1, 1]]}]",
]
CASES = [
    *(_text(f"text {text[:60]}".encode("unicode_escape").decode(), text) for text in _TEXTS),
    _text("deep arrays", nested(200_000)),
    _text("deep objects", nested(100_000, '{"prompts":', "}")),
    _text("deep points", f'[{{"points": {nested(100_000)}}}]'),
    _text("a number of a million digits", f'[{{"points": [[{"9" * 1_000_000}, 1]]}}]'),
    _text("a key of 3 MB", f'[{{"{"k" * 3_000_000}": 1}}]'),
    _text("a million points", json.dumps([{"points": [[1, 1]] * 1_000_000}]), "GLESAM_MAX_POINTS"),
    _text(
        "a million prompts",
        '[{"points":[[1,1]]}' + ',{"points":[[1,1]]}' * 999_999 + "]",
        "GLESAM_MAX_PROMPTS",
    ),
    _text("the smallest number", '[{"points": [[5e-324, 1]]}]', codes=(0,)),
    _text("latin-1 in a key", b'[{"p\xe9": 1}]'),
    _text("latin-1 in a value", b'[{"points": "\xe9\xff"}]'),
    _text("a lone surrogate", b'[{"\\ud800": 1}]'),
    _text("UTF-16", _SOUND.encode("utf-16")),
    _text("a byte order mark", b"\xef\xbb\xbf" + _SOUND.encode(), **accepted()),
    _text("null characters", _SOUND.encode() + bytes(9)),
    _text("a pickle", b"cos\nsystem\n(S'touch witness'\ntR."),
    *(
        _made(f"cut {n}", lambda p: p.write("prompts.json", cut(_SOUND.encode(), p.random)))
        for n in range(4)
    ),
    *(
        _made(
            f"flipped bits, {n}",
            lambda p: p.write("prompts.json", flipped(_SOUND.encode(), p.random, 2)),
            **accepted(),
        )
        for n in range(6)
    ),
    _at("no file", lambda _: None),
    _at("a folder", Path.mkdir),
    _at("a FIFO", os.mkfifo, "FIFO"),
    _at("a link to itself", lambda path: path.symlink_to(path)),
    _at("10 GB of nothing", lambda path: sparse(path, 10 << 30)),
    _at("10 GB that begins well", lambda path: sparse(path, 10 << 30, _SOUND.encode())),
    _made("/dev/zero", lambda _: "/dev/zero", "/dev/zero"),
    _made("/dev/random", lambda _: "/dev/random", "/dev/random"),
    _made("/dev/null", lambda _: "/dev/null", "/dev/null"),
    _made("/proc/self/mem", lambda _: "/proc/self/mem", "/proc/self/mem"),
    _made("a name of 5000 characters", lambda _: "p" * 5000, "ppp"),
]
