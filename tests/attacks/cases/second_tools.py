"""Inputs of glesam-degrade and glesam-evaluate in the second list."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..case import Case, Place, accepted
from ..damage import nested, sparse

_ANY = accepted()


def _degrade(name: str, make: Callable[[Place], list[Any]], **further: Any) -> Case:
    """Return the case of arguments of glesam-degrade."""
    return Case("second degrade", name, make, **{"program": "glesam-degrade", **further})


def _to(name: str, output: Callable[[Place], Any], says: str = "", **further: Any) -> Case:
    """Return the case of another output of glesam-degrade."""
    return _degrade(
        name, lambda p: [p.photo(), "--level", "1", "-o", output(p)], says=says, **further
    )


def _with(name: str, *options: str, says: str = "", **further: Any) -> Case:
    """Return the case of options of glesam-degrade."""

    def make(place: Place) -> list[Any]:
        place.out.mkdir()
        return [place.photo(), "-o", place.out / "a.png", *options]

    return _degrade(name, make, says=says, **further)


def _from(name: str, image: Callable[[Place], Any], **further: Any) -> Case:
    """Return the case of another image of glesam-degrade."""

    def make(place: Place) -> list[Any]:
        place.out.mkdir()
        return [image(place), "-o", place.out / "a.png", "--level", "3"]

    return _degrade(name, make, **further)


def _made(place: Place, change: Callable[[Path], object], name: str = "a.png") -> Path:
    """Return a path of the output folder at which `change` makes something."""
    place.out.mkdir()
    change(place.out / name)
    return place.out / name


def _link_to_input(place: Place) -> Path:
    return _made(place, lambda path: path.symlink_to(place.photo()))


def _input_kept(place: Place) -> str | None:
    return None if Image.open(place.inputs / "photo.png").size == (60, 40) else "the input is gone"


def _sized(width: int, height: int) -> Callable[[Place], Path]:
    return lambda place: place.photo("size.png", width, height)


def _float_tiff(value: float) -> Callable[[Place], Path]:
    def make(place: Place) -> Path:
        path = place.inputs / "a.tif"
        Image.fromarray(np.full((8, 8), value, np.float32)).save(path)
        return path

    return make


def _fifo(place: Place) -> Path:
    path = place.inputs / "a.png"
    os.mkfifo(path)
    return path


_DEGRADE = [
    _to("a JPEG", lambda p: p.root / "a.jpg", "lossless"),
    _to("no suffix", lambda p: p.root / "a", "lossless"),
    _to("only a suffix", lambda p: p.root / ".png", "lossless"),
    _to("nothing", lambda _: "", "lossless|"),
    _to("no folder", lambda p: p.out / "a.png", "out"),
    _to("a folder", lambda p: _made(p, Path.mkdir), "folder", writes=True),
    _to("a FIFO", lambda p: _made(p, os.mkfifo), codes=(0, 2), writes=True),
    _to("a link to the input", _link_to_input, "input", after=_input_kept, writes=True),
    _to("the input", lambda p: p.photo(), "input", after=_input_kept),
    _to("below a file", lambda p: p.secret / "a.png", "secret"),
    _to(
        "a link to /dev/full",
        lambda p: _made(p, lambda path: path.symlink_to("/dev/full")),
        codes=(0, 2),
        writes=True,
    ),
    _to("/dev/null.png", lambda _: "/proc/null.png", "/proc", touches=("/proc",)),
    _to("5000 characters", lambda p: p.root / ("o" * 5000 + ".png"), "too long"),
    _to(
        "a link to itself",
        lambda p: _made(p, lambda path: path.symlink_to(path)),
        codes=(0, 2),
        writes=True,
    ),
    _with("no level"),
    _with("level 0", "--level", "0", says="level"),
    _with("level 4", "--level", "4", says="level"),
    _with("level 10^30", "--level", "1" + "0" * 30, says="level"),
    _with("a level of full-width digits", "--level", "\uff11", codes=(0, 2)),
    _with("a seed of -1", "--level", "1", "--seed", "-1", codes=(0, 2)),
    _with("a seed of 2^64", "--level", "1", "--seed", str(1 << 64), codes=(0, 2)),
    _with("a seed of 4400 digits", "--level", "1", "--seed", "9" * 4400, codes=(0, 2)),
    _with("a seed of a half", "--level", "1", "--seed", "1.5"),
    _with("a kind of nothing", "--kind", ""),
    _with("a kind of control characters", "--kind", "\x1b[2J\u202e"),
    _with("a kind of a module", "--kind", "os.system"),
    _with("a kind and a level", "--kind", "fog", "--level", "1", codes=(0, 2)),
    *(
        _with(
            f"a strength of {value}",
            "--kind",
            "fog",
            "--strength",
            value,
            codes=(0, 2) if value in ("0", "-0.0") else (2,),
        )
        for value in ("nan", "inf", "-1", "1e308", "0")
    ),
    _with("a recipe of a path", "--level", "1", "--recipe", "../../secret"),
    _with("a square of 0", "--recipe", "released", "--square", "0"),
    _with("a square of -1", "--recipe", "released", "--square", "-1"),
    _with("a square of 10^9", "--recipe", "released", "--square", "1000000000"),
    _with("a square of 60000", "--recipe", "released", "--square", "60000"),
    _with("a square without a recipe", "--level", "1", "--square", "64"),
    _from("one pixel", _sized(1, 1), codes=(0,)),
    _from("two pixels", _sized(1, 2), codes=(0,)),
    _from("a line of 60000", _sized(60_000, 1), says="size.png"),
    _from("a column of 60000", _sized(1, 60_000), says="size.png"),
    _from("NaN", _float_tiff(float("nan")), **_ANY),
    _from("infinity", _float_tiff(float("inf")), **_ANY),
    _from("a FIFO as image", _fifo, says="FIFO"),
    _from("/dev/zero", lambda _: "/dev/zero", says="/dev/zero"),
    _from("10 GB of zeros", lambda p: sparse(p.inputs / "a.png", 10 << 30), says="a.png"),
    _from("no image", lambda p: p.inputs / "none.png", says="none"),
    _from("a folder as image", lambda p: p.inputs, says="folder"),
]


def _evaluate(
    name: str, data: Callable[[Place], Any], *options: Any, model: Any = None, **further: Any
) -> Case:
    """Return the case of data and options of glesam-evaluate; MODEL is a sound bundle."""

    def make(place: Place) -> list[Any]:
        return [place.sample if model is None else model, data(place), *options]

    expected = {"program": "glesam-evaluate", "changes": ("home", "tmp"), **further}
    return Case("second evaluate", name, make, **expected)


def _scenes(spec: str, says: str = "scenes", **further: Any) -> Case:
    return _evaluate(f"data {spec[:40]!r}", lambda _: spec, says=says, **further)


def _coco(name: str, change: Callable[[dict[str, Any]], Any], **further: Any) -> Case:
    """Return the case of a COCO file that `change` alters, or returns as text or bytes."""

    def make(place: Place) -> Path:
        place.photo()
        box = [5, 5, 30, 5, 30, 30, 5, 30]
        document: dict[str, Any] = {
            "images": [{"id": 1, "width": 60, "height": 40, "file_name": "photo.png"}],
            "annotations": [{"id": 1, "image_id": 1, "segmentation": [box], "area": 625}],
            "categories": [],
        }
        given = change(document)
        text = given if isinstance(given, str | bytes) else json.dumps(document)
        return place.write("coco.json", text)

    return _evaluate(name, make, *_QUICK, **{"says": "coco|photo", **further})


def _object(name: str, segmentation: Any, **further: Any) -> Case:
    """Return the case of a COCO file with this segmentation."""

    def change(document: dict[str, Any]) -> None:
        document["annotations"][0]["segmentation"] = segmentation

    return _coco(f"a segmentation of {name}", change, **further)


def _named(name: str, file: str, **further: Any) -> Case:
    """Return the case of a COCO file whose image has this name."""
    return _coco(name, lambda d: d["images"][0].update(file_name=file), **further)


def _folders(
    name: str, change: Callable[[Path, Path, Place], object], says: str = "inputs", **further: Any
) -> Case:
    """Return the case of a folder of images and masks that `change` fills."""

    def make(place: Place) -> Path:
        images, masks = place.inputs / "images", place.inputs / "masks"
        images.mkdir()
        masks.mkdir()
        (place.photo()).rename(images / "a.png")
        mask = np.zeros((40, 60), np.uint8)
        mask[9:30, 9:30] = 255
        Image.fromarray(mask).save(masks / "a.png")
        change(images, masks, place)
        return place.inputs

    return _evaluate(name, make, *_QUICK, **{"says": says, **further})


def _put(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _noise(path: Path) -> None:
    """Write a mask of 4000 objects."""
    mask = np.zeros((40, 60), np.uint8)
    mask[::2, ::2] = 255
    Image.fromarray(mask).save(path)


def _loop(_: Path, masks: Path, __: Place) -> None:
    (masks / "loop").symlink_to(masks)


_QUICK = ("--conditions", "clear", "--prompts", "1-point", "--device", "cpu")
_ONE = "scenes:1"
_RLE: dict[str, Any] = {"size": [40, 60]}
_EVALUATE = [
    *(
        _scenes(spec)
        for spec in (
            *("scenes:", "scenes:-1", "scenes:1@", "scenes:1@-5", "scenes:\uff11", "scenes:1 "),
            *("scenes:1e3", "scenes:" + "9" * 30, "scenes:1@" + "9" * 30, "scenes:1@1@1"),
        )
    ),
    _scenes("scenes:0"),
    _scenes("", ""),
    _scenes("\x1b[2J", ""),
    _scenes("/dev/zero", "/dev/zero"),
    _scenes("/proc", "/proc"),
    *(
        _evaluate(
            f"conditions {value[:30]!r}", lambda _: _ONE, "--conditions", value, says="condition|LQ"
        )
        for value in ("", ",", "LQ-4", "\x1b[2J", "clear " * 9000)
    ),
    _evaluate(
        "the same condition twice",
        lambda _: _ONE,
        "--conditions",
        "clear,clear",
        "--prompts",
        "box",
        **accepted(seconds=10),
    ),
    *(
        _evaluate(
            f"prompts {value[:30]!r}", lambda _: _ONE, "--prompts", value, says="prompt|point|box"
        )
        for value in (
            "",
            "0-point",
            "11-point",
            "-1-point",
            "\uff11-point",
            "9" * 5000 + "-point",
        )
    ),
    _evaluate(
        "a seed of 2^70", lambda _: _ONE, *_QUICK, "--seed", str(1 << 70), **accepted(seconds=10)
    ),
    _evaluate(
        "a limit of 10^18",
        lambda _: _ONE,
        *_QUICK,
        "--limit",
        "1" + "0" * 18,
        **accepted(seconds=10),
    ),
    _evaluate(
        "masks of 10^18",
        lambda _: _ONE,
        *_QUICK,
        "--max-masks",
        "1" + "0" * 18,
        **accepted(seconds=10),
    ),
    _evaluate("images of scenes", lambda _: _ONE, "--images", "/etc", says="--images"),
    _evaluate(
        "an output that is a file", lambda _: _ONE, *_QUICK, "-o", "/etc/passwd", says="file"
    ),
    _evaluate(
        "an output below a file", lambda _: _ONE, *_QUICK, "-o", "/etc/passwd/a", says="file"
    ),
    _evaluate(
        "an output of nothing",
        lambda _: _ONE,
        *_QUICK,
        "-o",
        "/proc/x/y",
        says="/proc",
        touches=("/proc",),
    ),
    _evaluate("a model of nothing", lambda _: _ONE, model="", says=""),
    _evaluate("a model of a line feed", lambda _: _ONE, model="nano\n", says="nano"),
    _evaluate("a model of a device", lambda _: _ONE, model="/dev/zero", says="/dev/zero"),
    _evaluate("a model of 5000 characters", lambda _: _ONE, model="m" * 5000, says="mmm"),
    _evaluate("a model of the root", lambda _: _ONE, model="/", says="/"),
    _evaluate("an empty condition of IoU", lambda _: _ONE, "--empty", "nan", says="--empty"),
    _coco("sound COCO", lambda _: None, codes=(0,)),
    _coco("COCO of no images", lambda d: d.update(images=[])),
    _coco("images of null", lambda d: d.update(images=None)),
    _coco("images of numbers", lambda d: d.update(images=[1, 2])),
    _coco("an image of no size", lambda d: d["images"][0].update(width=0, height=0)),
    _coco("an image of 2^60", lambda d: d["images"][0].update(width=1 << 60, height=1 << 60)),
    _coco("an image of NaN", lambda d: json.dumps(d).replace("60", "NaN", 1)),
    _coco("an image of -5", lambda d: d["images"][0].update(width=-60)),
    _coco("an id of NaN", lambda d: json.dumps(d).replace('"id": 1', '"id": NaN')),
    _coco("an id of 10^400", lambda d: json.dumps(d).replace(": 1,", ": 1e400,"), **_ANY),
    _coco(
        "ids of true",
        lambda d: [d["images"][0].update(id=True), d["annotations"][0].update(image_id=True)],
        **_ANY,
    ),
    _coco(
        "the same image 500 times",
        lambda d: d.update(images=d["images"] * 500),
        **accepted(seconds=20),
    ),
    _coco(
        "10^5 annotations of no image",
        lambda d: d.update(annotations=[{"image_id": 7, "segmentation": [[1]]}] * 100_000),
    ),
    _coco("deep JSON", lambda _: nested(200_000)),
    _coco(
        "deep JSON in a segmentation",
        lambda d: json.dumps(d).replace("[[5", nested(50_000)[:50_000] + "[[5"),
    ),
    _coco("nothing", lambda _: ""),
    _coco("a list", lambda _: "[]"),
    _coco("UTF-16", lambda d: json.dumps(d).encode("utf-16")),
    _coco("latin-1", lambda d: json.dumps(d).encode().replace(b"photo", b"phot\xe9")),
    _named("a name that leads outside", "../secret", says="secret: not an image"),
    _named("an absolute name", "/etc/passwd", says="passwd: not an image"),
    _named("a name of nothing", ""),
    _named("a name of NUL", "a\0.png"),
    _named("COCO with a name of escapes", "\x1b[2J\r\n.png"),
    _named("a name of a device", "/dev/zero"),
    _named("a name of 5000 characters", "a" * 5000),
    _named("a lone surrogate", "\ud800.png"),
    _named("a name of back slashes", "..\\..\\secret"),
    *(
        _object(name, value)
        for name, value in {
            "10^300": [[5, 5, 1e300, 5, 1e300, 1e300]],
            "text": "x" * 1000,
            "numbers": [1, 2, 3, 4, 5, 6],
            "no corner": [[]],
            "runs below 0": {**_RLE, "counts": [-5, 2405]},
            "runs that are too long": {**_RLE, "counts": [1 << 40, 1]},
            "runs that are too short": {**_RLE, "counts": [5, 5]},
            "runs of 2^70": {**_RLE, "counts": [1 << 70, 1]},
            "runs of junk": {**_RLE, "counts": "\x00\u00ff~~~~~~~~"},
            "runs of one letter 10^6 times": {**_RLE, "counts": "o" * 1_000_000},
            "runs of another size": {"size": [1 << 40, 1 << 40], "counts": [1 << 80]},
            "runs of nothing": {**_RLE, "counts": []},
            "a size of text": {"size": ["40", "60"], "counts": [5, 5]},
        }.items()
        if name != "10^300"
    ),
    _object("10^300", [[5, 5, 1e300, 5, 1e300, 1e300]], **_ANY),
    _object("10^5 corners", [[(n * 37 % 60) for n in range(200_000)]], **accepted(seconds=20)),
    _object("10^4 polygons", [[5, 5, 9, 5, 9, 9]] * 10_000, **accepted(seconds=20)),
    _object("an odd number of coordinates", [[5, 5, 9, 5, 9, 9, 7]], **_ANY),
    _folders("sound folders", lambda *_: None, codes=(0,)),
    _folders(
        "a mask of another size", lambda _, masks, __: Image.new("L", (9, 9)).save(masks / "a.png")
    ),
    _folders(
        "a mask of nothing", lambda _, masks, __: Image.new("L", (60, 40)).save(masks / "a.png")
    ),
    _folders(
        "a mask of all",
        lambda _, masks, __: Image.new("L", (60, 40), 255).save(masks / "a.png"),
        **_ANY,
    ),
    _folders(
        "a mask of 600 objects",
        lambda _, masks, __: _noise(masks / "a.png"),
        **accepted(seconds=20),
    ),
    _folders(
        "a mask of noise",
        lambda _, masks, p: (masks / "a.png").write_bytes(p.random.randbytes(999)),
    ),
    _folders("a mask that is a FIFO", lambda _, masks, __: _put(masks / "a.png", os.mkfifo)),
    _folders("a mask that is a folder", lambda _, masks, __: _put(masks / "a.png", Path.mkdir)),
    _folders(
        "a mask that is a link to /dev/zero",
        lambda _, masks, __: _put(masks / "a.png", lambda p: p.symlink_to("/dev/zero")),
    ),
    _folders(
        "an image that is a link to itself",
        lambda images, *_: _put(images / "a.png", lambda p: p.symlink_to(p)),
    ),
    _folders("masks in a loop", _loop, **_ANY),
    _folders("no images", lambda images, *_: (images / "a.png").unlink()),
    _folders("no masks", lambda _, masks, __: (masks / "a.png").unlink()),
    _folders(
        "a mask of floats",
        lambda _, masks, __: Image.fromarray(np.full((40, 60), np.nan, np.float32)).save(
            masks / "a.tif"
        ),
        **_ANY,
    ),
    _folders(
        "images of one name", lambda images, *_: Image.new("RGB", (60, 40)).save(images / "a.bmp")
    ),
    _folders(
        "a name that is no text",
        lambda images, masks, _: [
            Image.open(images / "a.png").save(images / os.fsdecode(b"\xff.png")),
            Image.open(masks / "a.png").save(masks / os.fsdecode(b"\xff.png")),
        ],
        **_ANY,
    ),
    _folders(
        "a name of escapes",
        lambda images, masks, _: [
            (folder / "a.png").rename(folder / "\x1b[2J.png") for folder in (images, masks)
        ],
        **_ANY,
    ),
]
CASES = [*_DEGRADE, *_EVALUATE]
