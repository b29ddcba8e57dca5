"""Manifests: wrong types, numbers out of range, names that lead outside, and broken JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..case import Case, Make, Place, accepted
from ..damage import Raw, changed, cut, flipped, manifest_of, nested, sparse

_SHA = "0" * 64
_HUGE = 1 << 62


def _field(path: str, value: Any, says: str = "manifest.json", **further: Any) -> Case:
    """Return the case of one changed value in the manifest."""
    spelled = value.text if isinstance(value, Raw) else json.dumps(value)
    name = f"{path or 'all'} = {str(spelled)[:80]}".encode("ascii", "backslashreplace").decode()
    return _file(name, lambda place, _: changed(_manifest(place), path, value), says, **further)


def _manifest(place: Place) -> Any:
    return manifest_of(place.sample)


def _file(
    name: str, content: Callable[[Place, bytes], bytes], says: str = "manifest", **further: Any
) -> Case:
    """Return the case of another manifest.json, made from the sound one."""

    def make(place: Place) -> list[Any]:
        path = place.bundle() / "manifest.json"
        path.write_bytes(content(place, path.read_bytes()))
        return place.command(bundle=path.parent)

    return Case("manifest", name, make, says, **further)


def _link(name: str, change: Callable[[Path], object], says: str, **further: Any) -> Case:
    """Return the case of a manifest.json that is something else than a file."""

    def make(place: Place) -> list[Any]:
        path = place.bundle() / "manifest.json"
        path.unlink()
        change(path)
        return place.command(bundle=path.parent)

    return Case("manifest", name, make, says, **further)


def _folder(name: str, make: Make, says: str = "bundle", **further: Any) -> Case:
    """Return the case of a path to a bundle; `make` returns the path."""
    return Case(
        "manifest", name, lambda place: place.command(bundle=make(place)[0]), says, **further
    )


def _resized(place: Place, size: int) -> bytes:
    """Return a manifest whose stages all agree on another size of the image."""
    manifest = _manifest(place)
    old = manifest["preprocessing"]["image_size"]
    manifest["preprocessing"]["image_size"] = size
    for stage in manifest["stages"].values():
        for spec in (*stage["inputs"], *stage["outputs"]):
            spec["shape"] = [
                {old: size, old // 16: size // 16, old // 4: size // 4}.get(axis, axis)
                for axis in spec["shape"]
            ]
    return json.dumps(manifest).encode()


_GRAPH = "stages.encoder.graph"
_FIELDS: list[tuple[Any, ...]] = [
    ("", {}),
    ("", []),
    ("", None),
    ("", "glesam-bundle"),
    ("", 5),
    ("", Raw("")),
    ("", Raw("NaN")),
    ("", Raw(b"\xff\xfe{\x00}\x00")),
    ("", Raw(nested(100_000))),
    ("", Raw(nested(100_000, '{"a":', "}"))),
    ("format", 1),
    ("format", None),
    ("format", "x" * 3_000_000, "format"),
    ("format", "\x1b[2J\x07", "format"),
    ("format", Raw('"\\ud800"')),
    ("version", 2, "upgrade"),
    ("version", 0, "version"),
    ("version", -1, "version"),
    ("version", "1"),
    ("version", True),
    ("version", Raw("1e400")),
    ("version", Raw("1" * 100_000)),
    ("requires", ["time travel"], "time travel"),
    ("requires", ["\x1b]0;owned\x07"], "requires"),
    ("requires", ["x" * 5000] * 50, "requires"),
    ("requires", [["levels"]]),
    ("requires", "levels"),
    ("model.family", "sam3"),
    ("model.family", ["sam"]),
    ("model.gamma", 0),
    ("model.gamma", -1),
    ("model.gamma", Raw("NaN")),
    ("model.gamma", Raw("1e309")),
    ("model.timestep", -1),
    ("model.timestep", Raw("1e400")),
    ("model.alpha_bar", 1),
    ("model.trained", "yes"),
    ("stages", {}, "missing"),
    ("stages", []),
    ("stages.extra", {}),
    ("stages.encoder", None),
    (f"{_GRAPH}.file", "../secret"),
    (f"{_GRAPH}.file", "/etc/passwd"),
    (f"{_GRAPH}.file", ".."),
    (f"{_GRAPH}.file", ""),
    (f"{_GRAPH}.file", "a/b.onnx"),
    (f"{_GRAPH}.file", "a\\b.onnx"),
    (f"{_GRAPH}.file", "C:encoder.onnx"),
    (f"{_GRAPH}.file", "encoder.onnx\n"),
    (f"{_GRAPH}.file", "encoder.onnx\u0000"),
    (f"{_GRAPH}.file", "x" * 129),
    (f"{_GRAPH}.file", "manifest.json"),
    (f"{_GRAPH}.file", "decoder.onnx", "bundle"),
    (f"{_GRAPH}.file", "\u202eonnx.encoder"),
    (f"{_GRAPH}.bytes", -1),
    (f"{_GRAPH}.bytes", 1 << 64, "encoder.onnx"),
    (f"{_GRAPH}.bytes", _HUGE, "encoder.onnx"),
    (f"{_GRAPH}.bytes", Raw("1e30")),
    (f"{_GRAPH}.sha256", _SHA, "altered"),
    (f"{_GRAPH}.sha256", "A" * 64),
    (f"{_GRAPH}.sha256", _SHA + "\n", "altered|manifest"),
    ("stages.encoder.data", {"file": "../secret", "bytes": 6, "sha256": _SHA}),
    ("stages.encoder.data", {"file": "none", "bytes": 6, "sha256": _SHA}, "missing"),
    ("stages.encoder.weights", {"file": "none", "bytes": 6, "sha256": _SHA}),
    ("stages.encoder.inputs", []),
    ("stages.encoder.inputs.0.name", "image\x1b[2J"),
    ("stages.encoder.inputs.0.dtype", "float16"),
    ("stages.encoder.inputs.0.shape", [1, 3, -64, 64]),
    ("stages.encoder.inputs.0.shape", [1, 3, _HUGE, _HUGE]),
    ("stages.encoder.inputs.0.shape", [1, 3]),
    ("stages.encoder.outputs.0.shape", [1] * 100_000),
    ("stages.decoder.profile", {"B": {"min": 3, "opt": 2, "max": 1}}),
    ("preprocessing.image_size", 0),
    ("preprocessing.image_size", 65),
    ("preprocessing.image_size", 1 << 40),
    ("preprocessing.image_size", 1 << 63),
    ("preprocessing.resize", "square"),
    ("preprocessing.channel_order", "BGR"),
    ("preprocessing.mean", [1, 2]),
    ("preprocessing.mean", [0, 0, 1e300], "mean"),
    ("preprocessing.mean", Raw("[0, NaN, 0]")),
    ("preprocessing.mean", Raw("[0, 1e309, 0]")),
    ("preprocessing.std", [0, 1, 1]),
    ("preprocessing.std", [-1, 1, 1]),
    ("preprocessing.std", [5e-324, 1, 1], "std"),
    ("preprocessing.std", [1, 1, 1e308], "std"),
    ("preprocessing.std", ["1", "1", "1"]),
    ("postprocessing.mask_threshold", 1e308, "mask_threshold"),
    ("postprocessing.mask_threshold", -1e308, "mask_threshold"),
    ("postprocessing.mask_threshold", Raw("-Infinity")),
    ("postprocessing.stability_offset", 5e-324, "stability_offset"),
    ("postprocessing.stability_offset", 1e308, "stability_offset"),
    ("postprocessing.stability_offset", 0),
    ("postprocessing.low_res_limit", 5e-324, "low_res_limit"),
    ("postprocessing.low_res_limit", 1e308, "low_res_limit"),
    ("postprocessing.single_mask", "first_if_stable"),
    ("postprocessing.stability", {"offset": 5e-324, "threshold": 2}),
    ("coordinates.order", "yx"),
    ("coordinates.pixel_offset", 0),
    ("coordinates.labels", {}),
    ("coordinates.labels", {"padding": Raw("1e400").text}),
    ("target.engine", "tensorrt"),
    ("target.engine", "/bin/sh"),
    ("target.batch", 0),
    ("target.batch", -1),
    ("target.batch", 1 << 40),
    ("target.batch", "many"),
    ("golden.file", "../secret"),
    ("golden.file", "encoder.onnx", "bundle"),
    ("parity", {"backend": 1}),
    ("provenance", None),
]
_FILES = [
    _file("a byte order mark", lambda _, sound: b"\xef\xbb\xbf" + sound),
    _file("UTF-16", lambda _, sound: sound.decode().encode("utf-16")),
    _file("latin-1", lambda _, sound: sound.replace(b'"toy"', b'"\xe9"')),
    _file("two documents", lambda _, sound: sound + sound),
    _file("a comment", lambda _, sound: b"// bundle\n" + sound),
    _file(
        "the version twice",
        lambda _, sound: sound.replace(b"{", b'{"version": 9,', 1),
        **accepted(),
    ),
    _file(
        "the format twice, then another",
        lambda _, sound: sound.rstrip()[:-1] + b', "format": "x"}',
        "not a bundle",
    ),
    _file(
        "deep JSON in an unknown field",
        lambda _, sound: sound.replace(b"{", b'{"x": ' + nested(50_000).encode() + b",", 1),
        **accepted(),
    ),
    _file(
        "a preset that commands a terminal",
        lambda _, sound: sound.replace(b'"toy"', b'"\\u001b[2J\\u202e"'),
        **accepted(),
    ),
    _file("an image of 2^20 pixels a side, in all stages", lambda p, _: _resized(p, 1 << 20)),
    _file("an image of 2^15 pixels a side, in all stages", lambda p, _: _resized(p, 1 << 15)),
    *(_file(f"cut {n}", lambda place, sound: cut(sound, place.random)) for n in range(6)),
    *(
        _file(
            f"{bits} flipped bits, {n}",
            lambda place, sound, bits=bits: flipped(sound, place.random, bits),
            "bundle|manifest",
            **accepted(),
        )
        for bits in (1, 5)
        for n in range(8)
    ),
]
_LINKS = [
    _link("10 GB of nothing", lambda path: sparse(path, 10 << 30), "manifest"),
    _link("a FIFO", os.mkfifo, "manifest"),
    _link("a folder", Path.mkdir, "manifest"),
    _link("a link to itself", lambda path: path.symlink_to(path), "manifest"),
    _link("a link to /dev/zero", lambda path: path.symlink_to("/dev/zero"), "manifest"),
    _link("a link to a process's memory", lambda p: p.symlink_to("/proc/self/mem"), "manifest"),
]
_FOLDERS = [
    _folder("a file as bundle", lambda place: [place.photo()]),
    _folder("no such bundle", lambda place: [place.inputs / "none"]),
    _folder("a bundle's name of 5000 bytes", lambda place: ["x" * 5000], "xxx"),
    _folder("a bundle's name with control characters", lambda _: ["b\x1b[2J\r\nb"]),
    _folder("/dev/zero as bundle", lambda _: ["/dev/zero"]),
    _folder("/proc/self/fd as bundle", lambda _: ["/proc/self/fd"]),
]
CASES = [*(_field(*each) for each in _FIELDS), *_FILES, *_LINKS, *_FOLDERS]
