"""The folder of --cache: flipped bits, exchanged graphs, records that lie, and no files at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ..case import Case, Place
from ..damage import flipped, nested, sparse
from ..program import run


def _graph(name: str, change: Callable[[Place, Path], object], **further: Any) -> Case:
    """Return the case of a cache in which `change` damages the folder of the encoder.

    The run must give the masks of a run without a cache, and leave the cache sound.
    """

    def make(place: Place) -> list[Any]:
        folder = place.root / "cache"
        folder.mkdir(mode=0o700)
        for path in _kept(place.sample.parent).iterdir():
            copied = shutil.copytree(path, folder / path.name)
            if path.name.startswith("onnxruntime-encoder"):
                change(place, Path(copied))
        return place.command("--cache", folder)

    expected = {"codes": (0,), "notes": True, "changes": ("cache",), "after": _same_mask, **further}
    return Case("cache", name, make, **expected)


def _folder(name: str, change: Callable[[Path], object], says: str = "cache") -> Case:
    """Return the case of a path of --cache at which `change` makes something else."""

    def make(place: Place) -> list[Any]:
        change(place.root / "cache")
        return place.command("--cache", place.root / "cache")

    return Case("cache", name, make, says)


@cache
def _kept(folder: Path) -> Path:
    """Return a sound cache, made by a run of the program; its mask lies beside it."""
    root = folder / "kept"
    place = Place(root, 0, folder / "sample")
    for each in (root, place.inputs, place.home, place.cwd, root / "tmp"):
        each.mkdir()
    case = Case("cache", "a sound cache", lambda place: [], codes=(0,))
    outcome = run(case, place.command("--cache", root / "cache"), place)
    assert outcome.code == 0, outcome.stderr
    return root / "cache"


def _same_mask(place: Place) -> str | None:
    wanted = _kept(place.sample.parent).with_name("out") / "photo_mask.png"
    mine = place.out / "photo_mask.png"
    return None if mine.read_bytes() == wanted.read_bytes() else "another mask"


def _flip(file: str) -> Callable[[Place, Path], object]:
    def change(place: Place, folder: Path) -> None:
        path = folder / file
        path.write_bytes(flipped(path.read_bytes(), place.random))

    return change


def _record(content: str | bytes) -> Callable[[Place, Path], object]:
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda _, folder: (folder / "record.json").write_bytes(raw)


def _altered(**values: Any) -> Callable[[Place, Path], object]:
    """Change values of the record."""

    def change(_: Place, folder: Path) -> None:
        path = folder / "record.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))

    return change


def _instead(file: str, make: Callable[[Path], object]) -> Callable[[Place, Path], object]:
    """Replace a file of the folder by something else."""

    def change(_: Place, folder: Path) -> None:
        (folder / file).unlink()
        make(folder / file)

    return change


def _decoder(_: Place, folder: Path) -> None:
    """Exchange the encoder for another stage, with its record."""
    other = next(folder.parent.glob("onnxruntime-decoder*"), None)
    source = other or next(_all(folder).glob("onnxruntime-decoder*"))
    shutil.rmtree(folder)
    shutil.copytree(source, folder)


def _all(folder: Path) -> Path:
    return folder.parents[2] / "kept" / "cache"


def _linked(_: Place, folder: Path) -> None:
    """Let the folder be a link to a copy of itself."""
    moved = folder.rename(folder.parents[1] / "elsewhere")
    folder.symlink_to(moved)


CASES = [
    _graph("untouched", lambda *_: None),
    *(_graph(f"a flipped bit of the graph, {n}", _flip("graph.onnx")) for n in range(6)),
    *(_graph(f"a flipped bit of the weights, {n}", _flip("graph.onnx.data")) for n in range(4)),
    *(_graph(f"a flipped bit of the record, {n}", _flip("record.json")) for n in range(4)),
    _graph("a graph of another stage, with its record", _decoder),
    _graph("an empty graph", _instead("graph.onnx", Path.touch)),
    _graph("no graph", _instead("graph.onnx", lambda _: None)),
    _graph("no weights", _instead("graph.onnx.data", lambda _: None)),
    _graph("no record", _instead("record.json", lambda _: None)),
    _graph("a graph that is a FIFO", _instead("graph.onnx", os.mkfifo)),
    _graph(
        "a graph that is a link to /dev/zero",
        _instead("graph.onnx", lambda p: p.symlink_to("/dev/zero")),
    ),
    _graph("a record that is a FIFO", _instead("record.json", os.mkfifo)),
    _graph("a record that is a folder", _instead("record.json", Path.mkdir)),
    _graph("a record of 10 GB", _instead("record.json", lambda path: sparse(path, 10 << 30))),
    _graph("a record of nothing", _record("")),
    _graph("a record of deep arrays", _record(nested(30_000))),
    _graph("a record that is no UTF-8", _record(b'{"made_of": "\xff"}')),
    _graph("a record without files", _altered(files={})),
    _graph("a record of other values", _altered(files={"graph.onnx": [1], "../../secret": None})),
    _graph("a record of another program", _altered(made_of={"program": "0.0"})),
    _graph("a further file", lambda _, folder: (folder / "evil.so").touch()),
    _graph("a folder that is a link", _linked, changes=("cache", "elsewhere")),
    _graph("a graph that others may write to", lambda _, folder: folder.chmod(0o777)),
    _folder("a file", Path.touch),
    _folder("a FIFO", os.mkfifo),
    _folder("a link to itself", lambda path: path.symlink_to(path)),
    _folder("a folder that others may write to", lambda p: p.mkdir() or p.chmod(0o777), "chmod"),
]
