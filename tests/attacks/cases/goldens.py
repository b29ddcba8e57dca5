"""Golden files: broken headers, tensors of other shapes and types, and too much of them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ..case import Case, Place, accepted
from ..damage import cut, flipped, nested, sign, sparse

_Tensors = dict[str, Any]


def _bytes(
    name: str, change: Callable[[Place, bytes], bytes], says: str = "golden", **further: Any
) -> Case:
    """Return the case of a golden file of other bytes; its hash is right."""

    def make(place: Place) -> list[Any]:
        path = place.bundle() / "golden.safetensors"
        path.write_bytes(change(place, path.read_bytes()))
        return _selftest(place)

    return Case("golden", name, make, says, **further)


def _selftest(place: Place) -> list[Any]:
    return ["--selftest", *place.engine(sign(place.bundle()))]


def _tensors(
    name: str, change: Callable[[_Tensors], object], says: str = "golden", **further: Any
) -> Case:
    """Return the case of a golden file whose tensors `change` alters."""

    def altered(_: Place, sound: bytes) -> bytes:
        tensors: _Tensors = load(sound)
        change(tensors)
        return save(tensors)

    return _bytes(name, altered, says, **further)


def _header(name: str, header: Any, body: int = 64, says: str = "golden") -> Case:
    """Return the case of a file with this header and zeros behind it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return _bytes(name, lambda *_: struct.pack("<Q", len(text)) + text + bytes(body), says)


def _entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"image": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


def _declared(name: str, tensor: str, changes: dict[str, Any]) -> Case:
    """Return the case of a header that declares one tensor otherwise."""

    def make(_: Place, sound: bytes) -> bytes:
        size = int.from_bytes(sound[:8], "little")
        header = json.loads(sound[8 : 8 + size])
        header[tensor] |= changes
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + sound[8 + size :]

    return _bytes(name, make)


def _large(place: Place) -> list[Any]:
    """Return the command for a golden file with 50 MB of a tensor that nobody asked for."""
    path = place.bundle() / "golden.safetensors"
    sound = path.read_bytes()
    size, more = int.from_bytes(sound[:8], "little"), 50_000_000
    header, end = json.loads(sound[8 : 8 + size]), len(sound) - 8 - size
    header["more"] = {"dtype": "U8", "shape": [more], "data_offsets": [end, end + more]}
    text = json.dumps(header).encode()
    start = struct.pack("<Q", len(text)) + text + sound[8 + size :]
    sparse(path, len(start) + more, start)
    return _selftest(place)


def _repeat(tensors: _Tensors, prompts: int) -> None:
    """Repeat the prompt of a golden file."""
    names = ("point_coords", "point_labels", "mask_input", "low_res_masks", "iou_predictions")
    for name in names:
        tensors[name] = np.repeat(tensors[name], prompts, axis=0)


def _large_picture(tensors: _Tensors) -> None:
    """Ask for 400 prompts x 4 masks of 9 megapixels, which are 14 GB together."""
    _repeat(tensors, 400)
    tensors["image"] = np.zeros((3000, 3000, 3), np.uint8)


def _set(name: str, value: Any) -> Callable[[_Tensors], None]:
    return lambda tensors: tensors.update({name: value})


def _as(name: str, dtype: Any) -> Callable[[_Tensors], None]:
    return lambda tensors: tensors.update({name: tensors[name].astype(dtype)})


def _fill(name: str, value: float) -> Callable[[_Tensors], None]:
    return lambda tensors: tensors.update({name: np.full_like(tensors[name], value)})


_NAN, _INF = float("nan"), float("inf")
_FAILED: dict[str, Any] = {"says": "self-test failed", "codes": (1,)}
CASES = [
    _bytes("empty", lambda *_: b""),
    _bytes("seven bytes", lambda *_: bytes(7)),
    *(
        _bytes(f"a header of {size} bytes", lambda _, s, size=size: struct.pack("<Q", size) + s[8:])
        for size in (0, 1, 1 << 20, 1 << 32, 1 << 60, (1 << 64) - 1)
    ),
    _header("a header that is no JSON", b"{{{{"),
    _header("a header of brackets", nested(50_000).encode()),
    _header("a header of deep metadata", b'{"__metadata__":' + nested(50_000).encode() + b"}"),
    _header("a header that is no UTF-8", b'{"\xff": 1}'),
    _header("a header that is an array", []),
    _header("a header without tensors", {}),
    _header("an unknown type", _entry("EVIL\x1b[2J", [8], 0, 8)),
    _header("a shape that overflows", _entry("F32", [1 << 62, 1 << 62], 0, 8)),
    _header("a negative shape", _entry("F32", [-1], 0, 8)),
    _header("a shape of 100000 axes", _entry("F32", [1] * 100_000, 0, 4)),
    _header("offsets beyond the file", _entry("U8", [1 << 40], 0, 1 << 40)),
    _header("offsets that decrease", _entry("U8", [8], 8, 0)),
    _header("negative offsets", _entry("U8", [8], -8, 0)),
    _header("offsets with a hole", _entry("U8", [8], 8, 16)),
    _header(
        "a million names",
        {f"x{n}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in range(100_000)},
    ),
    _header(
        "names that command a terminal",
        {"\x1b[2J": {"dtype": "U8", "shape": [64], "data_offsets": [0, 64]}},
    ),
    _declared("an image as float8", "image", {"dtype": "F8_E4M3"}),
    _declared("an image as int8", "image", {"dtype": "I8"}),
    _tensors("no image", lambda tensors: tensors.pop("image"), "lacks image"),
    _tensors("no masks", lambda tensors: tensors.pop("low_res_masks"), "lacks"),
    _tensors("a gray image", _set("image", np.zeros((9, 9), np.uint8))),
    _tensors("an image of 0 x 0", _set("image", np.zeros((0, 0, 3), np.uint8))),
    _tensors("an image of floats", _set("image", np.zeros((9, 9, 3), np.float32))),
    _tensors(
        "an image of 1 x 300000",
        _set("image", np.zeros((1, 300_000, 3), np.uint8)),
        codes=(1, 2),
        says="",
    ),
    _tensors("latents as float64", _as("image_embeddings", np.float64)),
    _tensors("latents as float16", _as("image_embeddings", np.float16)),
    _tensors("latents as bool", _as("image_embeddings", np.bool_)),
    _tensors(
        "latents of another shape", _set("image_embeddings", np.zeros((1, 256, 9, 9), np.float32))
    ),
    _tensors(
        "latents of two images", _set("enhanced_embeddings", np.zeros((2, 256, 4, 4), np.float32))
    ),
    _tensors("no prompt at all", _set("point_coords", np.zeros((0, 2, 2), np.float32))),
    _tensors("more labels than points", _set("point_labels", np.ones((1, 9), np.float32))),
    _tensors("masks of another size", _set("low_res_masks", np.zeros((1, 4, 9, 9), np.float32))),
    _tensors("a bfloat16 that nobody asked for", lambda t: t.update(more=np.zeros(4, np.float16))),
    _tensors("latents of NaN", _fill("image_embeddings", _NAN), codes=(1, 2), says=""),
    _tensors("latents of infinity", _fill("image_embeddings", _INF), codes=(1, 2), says=""),
    _tensors("latents of 3e38", _fill("enhanced_embeddings", 3e38), codes=(1, 2), says=""),
    _tensors("masks of NaN", _fill("low_res_masks", _NAN), **_FAILED),
    _tensors("scores of infinity", _fill("iou_predictions", _INF), **_FAILED),
    _tensors("points of NaN", _fill("point_coords", _NAN), codes=(1, 2), says=""),
    _tensors("points at 1e38", _fill("point_coords", 1e38), codes=(1, 2), says=""),
    _tensors("labels of 7", _fill("point_labels", 7), codes=(1, 2), says=""),
    _tensors("latents of zeros", _fill("image_embeddings", 0), codes=(1, 2), says=""),
    _tensors(
        "400 prompts on 9 megapixels",
        _large_picture,
        codes=(0, 1, 2),
        says="",
        seconds=15,
        mebibytes=500,
    ),
    _tensors(
        "20000 prompts",
        lambda tensors: _repeat(tensors, 20_000),
        codes=(0, 1, 2),
        says="",
        mebibytes=600,
    ),
    Case(
        "golden",
        "more bytes than the limit",
        _large,
        "GLESAM_MAX_GOLDEN_MIB",
        environment={"GLESAM_MAX_GOLDEN_MIB": "20"},
        mebibytes=40,
    ),
    *(_bytes(f"cut {n}", lambda place, sound: cut(sound, place.random)) for n in range(4)),
    *(
        _bytes(
            f"flipped bits, {n}",
            lambda p, s: flipped(s, p.random, 20),
            **accepted(codes=(0, 1, 2), says=""),
        )
        for n in range(6)
    ),
    *(
        _bytes(
            f"flipped bits in the header, {n}",
            lambda p, s: flipped(s[:900], p.random, 2) + s[900:],
            **accepted(codes=(0, 1, 2), says=""),
        )
        for n in range(6)
    ),
]
