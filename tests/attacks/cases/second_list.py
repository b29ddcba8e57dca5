"""A second list, thought up without a look at the first one: folders, patterns, pipes and results.

Its kinds are those of the first list, and `source`: what names images other than by their files.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save

from ..case import Case, Place, accepted
from ..damage import changed, manifest_of, nested, sparse

_BOX = "1,1,30,30"


def _source(name: str, make: Callable[[Place], list[Any]], says: str = "", **further: Any) -> Case:
    """Return the case of image arguments that `make` returns."""
    return Case(
        "source",
        name,
        lambda place: [*make(place), "--box", _BOX, *place.engine()],
        says,
        **further,
    )


def _piped(name: str, content: bytes) -> Case:
    """Return the case of an image on standard input."""

    def make(place: Place) -> list[Any]:
        place.write("piped", content)
        return ["-"]

    def before(place: Place) -> None:
        os.dup2(os.open(place.inputs / "piped", os.O_RDONLY), 0)

    return _source(name, make, "stdin", before=before)


def _prompts(name: str, content: str, says: str = "prompts.json", **further: Any) -> Case:
    """Return the case of a prompts file with this content."""

    def make(place: Place) -> list[Any]:
        return [place.photo(), "--prompts", place.write("prompts.json", content), *place.engine()]

    return Case("prompts", f"second: {name}", make, says, **further)


def _manifest(path: str, value: Any, says: str = "manifest.json", **further: Any) -> Case:
    """Return the case of one changed value in the manifest."""

    def make(place: Place) -> list[Any]:
        bundle = place.bundle()
        (bundle / "manifest.json").write_bytes(changed(manifest_of(place.sample), path, value))
        search = ("--everything", "--points-per-side", "2")
        return [place.photo(), *search, *place.engine(bundle)]

    name = f"second: {path} = {json.dumps(value)[:60]}"
    return Case("manifest", name, make, says, **further)


def _info(
    name: str, make: Callable[[Place], list[Any]], says: str = "inputs", **further: Any
) -> Case:
    """Return the case of paths that `glesam-export info` is asked about."""
    return Case(
        "checkpoint",
        f"second: {name}",
        lambda place: ["info", *make(place)],
        says,
        **{"program": "glesam-export", "mebibytes": 300, **further},
    )


def _image(name: str, content: Callable[[], bytes], file: str = "a.png", **further: Any) -> Case:
    """Return the case of an image file with this content."""
    return Case(
        "image",
        f"second: {name}",
        lambda place: place.command(image=place.write(file, content())),
        **{"says": "inputs", **further},
    )


def _linked_to_itself(place: Place) -> list[Any]:
    folder = place.inputs / "loop"
    folder.mkdir()
    (folder / "again").symlink_to(folder)
    return [folder, "--recursive"]


def _many_names(place: Place) -> list[Any]:
    folder = place.inputs / "many"
    folder.mkdir()
    for index in range(2000):
        (folder / f"{index}.txt").touch()
    return [folder]


def _special_files(place: Place) -> list[Any]:
    folder = place.inputs / "special"
    folder.mkdir()
    os.mkfifo(folder / "fifo.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    return [folder]


def _deep_folder(place: Place) -> list[Any]:
    folder = place.inputs
    for _ in range(200):
        folder = folder / "d"
    folder.mkdir(parents=True)
    return [place.inputs / "d", "--recursive"]


def _unreadable(place: Place) -> list[Any]:
    return [place.inputs / "nothing" / "*.png"]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _picture(format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(buffer, format, **options)
    return buffer.getvalue()


def _with_chunk(kind: bytes, content: bytes) -> bytes:
    sound = _picture()
    return sound[:33] + _chunk(kind, content) + sound[33:]


def _text_bomb() -> bytes:
    return _with_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(200 << 20), 9))


def _profile_bomb() -> bytes:
    return _with_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(200 << 20), 9))


def _exif(content: bytes) -> bytes:
    return _picture("JPEG", exif=b"Exif\0\0" + content)


def _pages() -> bytes:
    """Return a TIFF of one page whose directory leads back to itself."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "TIFF")
    content = bytearray(buffer.getvalue())
    start = struct.unpack("<I", content[4:8])[0]
    count = struct.unpack("<H", content[start : start + 2])[0]
    content[start + 2 + 12 * count : start + 6 + 12 * count] = struct.pack("<I", start)
    return bytes(content)


def _frames(format: str) -> bytes:
    frames = [Image.fromarray(np.full((32, 48, 3), value, np.uint8)) for value in range(0, 250, 5)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], duration=10)
    return buffer.getvalue()


def _result(**changes: Any) -> str:
    mask = {
        "id": 1,
        "box": [1, 1, 20, 20],
        "predicted_iou": 0.9,
        "stability_score": 0.9,
        "area": 5,
        "rle": {"size": [40, 60], "counts": "0"},
    }
    return json.dumps({"prompts": [{**mask, **changes}]})


def _transformers_folder(place: Place, config: str, **tensors: Any) -> list[Any]:
    folder = place.inputs / "sam"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(save(tensors or _TENSORS))
    return [folder]


_TENSORS = {
    "shared_image_embedding.positional_embedding": np.zeros((2, 8), np.float32),
    "vision_encoder.pos_embed": np.zeros((1, 4, 4, 8), np.float32),
    "mask_decoder.iou_token.weight": np.zeros((1, 8), np.float32),
}


def _index(place: Place, places: Any) -> list[Any]:
    path = place.inputs / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": places}))
    return [path]


def _overlapping(place: Place) -> list[Any]:
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
            for name in ("image_encoder.a", "image_encoder.b")
        }
    ).encode()
    return [place.write("a.safetensors", struct.pack("<Q", len(header)) + header + bytes(16))]


def _million_tensors(place: Place) -> list[Any]:
    entries = {
        f"image_encoder.{index}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
        for index in range(200_000)
    }
    header = json.dumps(entries).encode()
    return [place.write("many.safetensors", struct.pack("<Q", len(header)) + header)]


CASES: list[Case] = [
    _source("a folder that holds itself", _linked_to_itself, "loop"),
    _source("2,000 files that are no images", _many_names, "many"),
    _source("a FIFO and a device in a folder", _special_files, lines=2),
    _source("200 folders within each other", _deep_folder, "d"),
    _source("a pattern in a folder that is missing", _unreadable, "nothing"),
    _source("a pattern of 300 stars", lambda place: [place.inputs / ("*" * 300)], "", **accepted()),
    _source("many double stars", lambda place: [place.inputs / "/".join(["**"] * 40)], ""),
    _source("an open bracket", lambda place: [place.inputs / "[.png"], "png"),
    _source("a class of everything", lambda place: [place.inputs / "[!]"], ""),
    _source("a newline in a pattern", lambda place: [place.inputs / "*\n.png"], ""),
    _source("an empty argument", lambda _: [""], ""),
    _source("a dot", lambda _: ["."], ""),
    _source("the process's own memory", lambda _: ["/proc/self/mem"], "mem"),
    _source("an endless device", lambda _: ["/dev/zero"], "/dev/zero"),
    _source("its own output as a folder", lambda place: [place.out], "out"),
    _source("the same image a hundred times", lambda place: [place.photo()] * 100, codes=(0, 2),
            writes=True, seconds=60, lines=100, notes=True),
    _piped("nothing on standard input", b""),
    _piped("text on standard input", b"hello"),
    _piped("half an image on standard input", _picture()[:60]),
    _piped("PostScript on standard input", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    _piped("zeros on standard input", bytes(8 << 20)),
    _prompts("a result without a box", _result(box=None)),
    _prompts("a result with a box of text", _result(box=["a", "b", "c", "d"])),
    _prompts("a result with a huge box", _result(box=[0, 0, 1 << 62, 1 << 62])),
    _prompts("a result with NaN", _result().replace("0.9", "NaN", 1)),
    _prompts("a result with runs of text", _result(rle="x" * 1000)),
    _prompts("a result with points of three", _result(points=[[1, 2, 3]])),
    _prompts("results of no image", '{"images": []}'),
    _prompts("results of two images", json.dumps({"images": [{"masks": []}, {"masks": []}]})),
    _prompts("results that failed", '{"images": [{"image": "a.png", "error": "x"}]}'),
    _prompts("deep results", '{"images": ' + nested(100_000) + "}"),
    _prompts("two kinds at once", '{"images": [], "prompts": [{"box": [1, 1, 9, 9]}]}',
             **accepted()),
    _manifest("everything", {"pred_iou_thresh": 2.0}),
    _manifest("everything", {"pred_iou_thresh": "high"}),
    _manifest("everything", {"stability_score_offset": 1e308}),
    _manifest("everything", []),
    _manifest("preprocessing.first_resize", {"size": 0, "kernel": "pillow_bicubic"}),
    _manifest("preprocessing.first_resize", {"size": 1 << 40, "kernel": "pillow_bicubic"}),
    _manifest("preprocessing.first_resize", {"size": 128, "kernel": "__import__('os')"}),
    _manifest("preprocessing.first_resize", {"size": 128, "kernel": "pillow_bicubic"}),
    _manifest("requires", ["released_input"]),
    _manifest("requires", ["\x1b[2J"]),
    _manifest("requires", ["x" * 100_000]),
    _manifest("requires", "released_input"),
    _image("a comment of 200 MB, compressed", _text_bomb, **accepted()),
    _image("a colour profile of 200 MB, compressed", _profile_bomb, **accepted()),
    _image("EXIF without content", lambda: _exif(b""), "a.jpg", **accepted()),
    _image("EXIF of ones", lambda: _exif(b"\xff" * 4000), "a.jpg", **accepted()),
    _image("an EXIF directory that leads to itself",
           lambda: _exif(b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"),
           "a.jpg", **accepted()),
    _image("TIFF pages that lead to themselves", _pages, "a.tif", **accepted()),
    _image("an animated GIF", lambda: _frames("GIF"), "a.gif", codes=(0,), notes=True),
    _image("an animated WebP", lambda: _frames("WEBP"), "a.webp", codes=(0,), notes=True),
    _image("a picture behind 64 KiB of spaces", lambda: b" " * (64 << 10) + _picture()),
    _image("two pictures in one file", lambda: _picture() + _picture("JPEG"), codes=(0,)),
    _image("HTML", lambda: b"<html><img src='file:///etc/passwd'></html>"),
    _image("SVG that reads a file",
           lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>",
           "a.svg"),
    _info("a transformers folder of another type",
          lambda place: _transformers_folder(place, '{"model_type": "bert"}'), **accepted()),
    _info("a transformers folder of deep JSON",
          lambda place: _transformers_folder(place, nested(100_000)), **accepted()),
    _info("a transformers folder whose config is a list",
          lambda place: _transformers_folder(place, "[1]"), **accepted()),
    _info("a transformers folder of huge sizes",
          lambda place: _transformers_folder(
              place, '{"model_type": "sam", "vision_config": {"image_size": 1e400}}'),
          **accepted()),
    _info("a type with control characters",
          lambda place: _transformers_folder(place, '{"model_type": "\\u001b[2J"}'), **accepted()),
    _info("an index that leads outside",
          lambda place: _index(place, {"image_encoder.a": "../../secret"})),
    _info("an index to an absolute path",
          lambda place: _index(place, {"image_encoder.a": "/etc/passwd"})),
    _info("an index to itself",
          lambda place: _index(place, {"image_encoder.a": "model.safetensors.index.json"})),
    _info("an index of numbers", lambda place: _index(place, {"a": 5})),
    _info("an index to 1,000 missing files",
          lambda place: _index(place, {f"a.{n}": f"{n}.safetensors" for n in range(1000)})),
    _info("a sparse index of 10 GB",
          lambda place: [sparse(place.inputs / "model.safetensors.index.json", 10 << 30, b"{")]),
    _info("tensors that overlap", _overlapping, **accepted()),
    _info("200,000 tensors without elements", _million_tensors, **accepted(seconds=20)),
    _info("a folder of 2,000 files", _many_names, "", codes=(0,)),
    _info("a file without a name's end", lambda place: [Path(str(place.write("x", b"")) + "\0y")],
          ""),
]  # fmt: skip
