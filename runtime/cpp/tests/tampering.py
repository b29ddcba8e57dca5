"""Define the changes that turn a good bundle into a tampered one, by name."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

from glesam_runtime.bundle import sha256_of

Change = Callable[[Path], object]


def edited(*keys: str | int, to: Any = None, remove: bool = False) -> Change:
    """Return a change that sets or removes a field of the manifest."""

    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        manifest = json.loads(path.read_bytes())
        place = manifest
        for key in keys[:-1]:
            place = place[key]
        if remove:
            del place[keys[-1]]
        else:
            place[keys[-1]] = copy.deepcopy(to)
        path.write_text(json.dumps(manifest))

    return change


def manifest_of(raw: bytes) -> Change:
    """Return a change that replaces the manifest's bytes."""
    return lambda folder: (folder / "manifest.json").write_bytes(raw)


def flipped(file: str) -> Change:
    """Return a change that flips a bit in the middle of a file."""

    def change(folder: Path) -> None:
        raw = bytearray((folder / file).read_bytes())
        raw[len(raw) // 2] ^= 1
        (folder / file).write_bytes(raw)

    return change


def replaced(file: str, raw: bytes) -> Change:
    """Return a change that replaces a file and makes the manifest agree, as an attacker would."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_bytes(raw)
        stage = path.stem
        keys: tuple[str, ...] = ("golden",) if stage == "golden" else ("stages", stage, "graph")
        edited(*keys, "bytes", to=len(raw))(folder)
        edited(*keys, "sha256", to=sha256_of(path))(folder)

    return change


def linked_to(target: str) -> Change:
    """Return a change that replaces a file by a symbolic link."""

    def change(folder: Path) -> None:
        (folder / "decoder.onnx").unlink()
        (folder / "decoder.onnx").symlink_to(target)

    return change


def in_a_cache(folder: Path) -> None:
    """Replace every file by a link to a blob in another folder, as Hugging Face's cache does."""
    blobs = folder.parent / f"{folder.name}-blobs"
    blobs.mkdir()
    for path in sorted(folder.iterdir()):
        blob = blobs / sha256_of(path)
        shutil.move(path, blob)
        path.symlink_to(Path("..") / blobs.name / blob.name)


def on_a_volume(folder: Path) -> None:
    """Replace every file by a link into a hidden folder, as a Kubernetes volume does."""
    paths = sorted(folder.iterdir())
    (folder / "..2026").mkdir()
    (folder / "..data").symlink_to("..2026")
    for path in paths:
        shutil.move(path, folder / "..2026" / path.name)
        path.symlink_to(Path("..data") / path.name)


def external(location: bytes | None) -> bytes:
    """Return an ONNX model whose only tensor is external data at `location`."""

    def field(number: int, payload: bytes) -> bytes:
        return bytes([number << 3 | 2, len(payload)]) + payload

    tensor = bytes([14 << 3, 1])
    if location is not None:
        tensor += field(13, field(1, b"location") + field(2, location))
    return field(7, field(5, tensor))


FIRST_RESIZE = {"size": 32, "kernel": "pillow_bicubic"}
GRAPH = ("stages", "encoder", "graph")
DECODER_INPUT = ("stages", "decoder", "inputs", 0)
MANIFESTS: dict[str, tuple[Any, ...]] = {
    "newer": ("version", 2),
    "far newer": ("version", 10**18),
    "version of 1e19": ("version", 1e19),
    "older": ("version", 0),
    "below zero": ("version", -1),
    "version as text": ("version", "1"),
    "version 1.0": ("version", 1.0),
    "version null": ("version", None),
    "another format": ("format", "zip"),
    "a format to escape": ("format", "it's \n\u00e9\u0001"),
    "format as number": ("format", 3),
    "unknown family": ("model", "family", "sam3"),
    "family as number": ("model", "family", 3),
    "preset null": ("model", "preset", None),
    "trained as number": ("model", "trained", 1),
    "gamma null": ("model", "gamma", None),
    "gamma 0": ("model", "gamma", 0.0),
    "gamma as text": ("model", "gamma", "5"),
    "alpha_bar 1": ("model", "alpha_bar", 1),
    "timestep below zero": ("model", "timestep", -1),
    "timestep 1.5": ("model", "timestep", 1.5),
    "a stage more": ("stages", "upscaler", {}),
    "stage as number": ("stages", "encoder", 3),
    "graph as array": (*GRAPH, []),
    "a file above": (*GRAPH, "file", "../e.onnx"),
    "an absolute file": (*GRAPH, "file", "/etc/passwd"),
    "no file name": (*GRAPH, "file", ""),
    "a long file name": (*GRAPH, "file", "e" * 129),
    "a hash of another length": (*GRAPH, "sha256", "00"),
    "a hash in capitals": (*GRAPH, "sha256", "AB" * 32),
    "bytes below zero": (*GRAPH, "bytes", -1),
    "other bytes": (*GRAPH, "bytes", 7),
    "unknown precision": ("stages", "encoder", "precision", "fp4"),
    "data as number": ("stages", "encoder", "data", 3),
    "empty data": ("stages", "encoder", "data", {}),
    "islands of numbers": ("stages", "encoder", "islands", [3]),
    "inputs as object": ("stages", "encoder", "inputs", {}),
    "no inputs": ("stages", "encoder", "inputs", []),
    "another dtype": (*DECODER_INPUT, "dtype", "float16"),
    "another name": (*DECODER_INPUT, "name", "embeddings"),
    "axis 0": (*DECODER_INPUT, "shape", 0, 0),
    "axis of two letters": (*DECODER_INPUT, "shape", 0, "BB"),
    "axis null": (*DECODER_INPUT, "shape", 0, None),
    "axis 1.5": (*DECODER_INPUT, "shape", 0, 1.5),
    "another axis": ("stages", "encoder", "outputs", 0, "shape", 1, 128),
    "another symbol": ("stages", "decoder", "inputs", 1, "shape", 0, "X"),
    "another size": ("preprocessing", "image_size", 128),
    "an odd size": ("preprocessing", "image_size", 70),
    "a small size": ("preprocessing", "image_size", 8),
    "an endless size": ("preprocessing", "image_size", 2**62),
    "a contradiction": ("preprocessing", "resize", "square"),
    "unknown kernel": ("preprocessing", "kernel", "bicubic"),
    "BGR": ("preprocessing", "channel_order", "BGR"),
    "two means": ("preprocessing", "mean", [1, 2]),
    "a mean as text": ("preprocessing", "mean", [1, 2, "3"]),
    "a std of 0": ("preprocessing", "std", [1, 2, 0]),
    "stability missing": ("postprocessing", "single_mask", "first_if_stable"),
    "stability above 1": ("postprocessing", "stability", {"offset": 1, "threshold": 2}),
    "half a stability": ("postprocessing", "stability", {"offset": 1}),
    "a limit below 0": ("postprocessing", "low_res_limit", -1),
    "a limit as text": ("postprocessing", "low_res_limit", "x"),
    "a required feature": ("requires", ["levels"]),
    "two required features": ("requires", ["levels", "it's \n\u00e9"]),
    "a required number": ("requires", [3]),
    "requires as text": ("requires", "levels"),
    "requires null": ("requires", None),
    "a first resize without its feature": ("preprocessing", "first_resize", FIRST_RESIZE),
    "a feature without its first resize": ("requires", ["released_input"]),
    "a first resize that is null": ("preprocessing", "first_resize", None),
    "a first resize that is a number": ("preprocessing", "first_resize", 32),
    "an empty first resize": ("preprocessing", "first_resize", {}),
    "a first resize to nothing": ("preprocessing", "first_resize", {**FIRST_RESIZE, "size": 0}),
    "another first kernel": ("preprocessing", "first_resize", {**FIRST_RESIZE, "kernel": "box"}),
    "another order": ("coordinates", "order", "yx"),
    "another space": ("coordinates", "space", "pixels"),
    "no pixel offset": ("coordinates", "pixel_offset", 0),
    "half a pixel less": ("coordinates", "pixel_offset", -0.5),
    "a pixel offset as text": ("coordinates", "pixel_offset", "0.5"),
    "labels as array": ("coordinates", "labels", []),
    "a label of 1.5": ("coordinates", "labels", {"a": 1.5}),
    "no labels": ("coordinates", "labels", {}),
    "another label": ("coordinates", "labels", "padding", 4),
    "a label beyond 64 bits": ("coordinates", "labels", "padding", -(10**30)),
    "a label more": ("coordinates", "labels", "negative_box", 4),
    "unknown box": ("coordinates", "box", "centre"),
    "batch 0": ("target", "batch", 0),
    "batch of a word": ("target", "batch", "many"),
    "batch null": ("target", "batch", None),
    "a dynamic batch": ("target", "batch", "dynamic"),
    "unknown engine": ("target", "engine", "abacus"),
    "opset as text": ("target", "opset", "18"),
    "sources as object": ("provenance", "sources", {}),
    "a tool as number": ("provenance", "tools", {"torch": 3}),
    "parity as number": ("parity", 3),
    "half a parity": ("parity", {"backend": "x", "gate": {}}),
    "a line break": ("golden", "file", "golden.x\n"),
    "a hidden file": ("golden", "file", ".golden"),
    "a file named twice": ("golden", "file", "encoder.onnx"),
    "the manifest itself": ("golden", "file", "manifest.json"),
    "a missing file": ("golden", "file", "silver.safetensors"),
}
SIZES = {"min": 1, "opt": 2, "max": 4}
BUILD = {
    "version": "1.7.1.116",
    "system": "linux-x86_64",
    "compute_capabilities": ["8.9", "12.0"],
    "source": "0" * 64,
    "precision_seen_in": "network",
}
CALIBRATION = {
    "source": "0" * 64,
    "weights_only": ["decoder"],
    "method": "percentile",
    "percentile": 99.99,
    "smoothing": None,
    "seed": 0,
    "procedural": True,
    "samples": [{"image": "scene", "sha256": "0" * 64, "level": "clear"}],
    "float_layers": {"encoder": ["blocks.0"]},
}
WHOLE_BUILD = ("target", "build")
PROFILE = ("stages", "decoder", "profile")
ENGINES: dict[str, tuple[Any, ...]] = {
    "no build": (*WHOLE_BUILD, None),
    "a build that is a number": (*WHOLE_BUILD, 3),
    "a graph with a build": ("target", "engine", "onnx"),
    "a capability by another name": (*WHOLE_BUILD, "compute_capabilities", ["sm_89"]),
    "one capability": (*WHOLE_BUILD, "compute_capabilities", "8.9"),
    "a gpu that is a number": (*WHOLE_BUILD, "gpu", 3),
    "unknown compatibility": (*WHOLE_BUILD, "hardware_compatibility", "all"),
    "level as text": (*WHOLE_BUILD, "optimization_level", "5"),
    "a timing cache without a hash": (*WHOLE_BUILD, "timing_cache", "x"),
    "a timing cache that is a number": (*WHOLE_BUILD, "timing_cache", 3),
    "changes as text": (*WHOLE_BUILD, "changes", "none"),
    "stripped of weights it has": (*WHOLE_BUILD, "stripped", True),
    "seen elsewhere": (*WHOLE_BUILD, "precision_seen_in", "log"),
    "an engine that is a graph": ("stages", "encoder", "graph", "file", "encoder.onnx"),
    "no profile": (*PROFILE, None),
    "a profile that is a number": (*PROFILE, 3),
    "a profile by a word": (*PROFILE, "batch", SIZES),
    "a profile too many": (*PROFILE, "N", SIZES),
    "a range that is a number": (*PROFILE, "B", 3),
    "a range without a middle": (*PROFILE, "B", {"min": 1, "max": 2}),
    "a range from zero": (*PROFILE, "B", "min", 0),
    "a range out of order": (*PROFILE, "B", "opt", 9),
    "weights that are a number": ("stages", "encoder", "weights", 3),
    "an engine that is missing": ("stages", "encoder", "graph", "file", "other.engine"),
    "a calibration that is a number": ("calibration", 3),
    "a calibration of no method": ("calibration", {**CALIBRATION, "method": "guess"}),
    "a calibration of no stage": ("calibration", {**CALIBRATION, "weights_only": ["unet"]}),
    "a calibration at no level": (
        "calibration",
        {**CALIBRATION, "samples": [{"image": "a", "sha256": "0" * 64, "level": "LQ-4"}]},
    ),
    "a percentile as text": ("calibration", {**CALIBRATION, "percentile": "99"}),
    "layers of no stage": ("calibration", {**CALIBRATION, "float_layers": {"unet": ["a"]}}),
}
GATE = {
    "encoder": "0" * 64,
    "enhancer": "1" * 64,
    "features": "channel_moments",
    "weights": [0.5] * 512,
    "bias": -1,
    "threshold": 0.25,
    "target": "iou",
    "training": {
        "data": "scenes:20",
        "pictures": 20,
        "cases": 440,
        "kinds": ["clear"],
        "seed": 0,
        "correlation": -0.5,
        "area": 0.75,
        "curve": [{"threshold": 0, "enhanced": 0.5, "hits": 1, "false_alarms": 0}],
    },
}
TRAINED = ("enhancement_gate", "training")
GATES: dict[str, tuple[Any, ...]] = {
    "a gate that is null": ("enhancement_gate", None),
    "a gate that is a number": ("enhancement_gate", 3),
    "an empty gate": ("enhancement_gate", {}),
    "a gate of no encoder": ("enhancement_gate", "encoder", "0" * 63),
    "a gate of other features": ("enhancement_gate", "features", "pixels"),
    "a weight too few": ("enhancement_gate", "weights", [0.5] * 511),
    "a weight too many": ("enhancement_gate", "weights", [0.5] * 513),
    "a weight as text": ("enhancement_gate", "weights", 7, "0.5"),
    "an endless weight": ("enhancement_gate", "weights", 7, 1e13),
    "weights as text": ("enhancement_gate", "weights", "0.5"),
    "a threshold below all": ("enhancement_gate", "threshold", -1e300),
    "a bias that is null": ("enhancement_gate", "bias", None),
    "a gate for nothing": ("enhancement_gate", "target", "speed"),
    "a gate of no training": (*TRAINED, None),
    "pictures below 0": (*TRAINED, "pictures", -1),
    "a correlation above 1": (*TRAINED, "correlation", 1.5),
    "an area below 0": (*TRAINED, "area", -0.5),
    "a kind that is a number": (*TRAINED, "kinds", [3]),
    "half a point of a curve": (*TRAINED, "curve", 0, {"threshold": 0, "enhanced": 0.5}),
    "a point above 1": (*TRAINED, "curve", 0, "hits", 2),
}


def gated(change: Change) -> Change:
    """Return a change to a bundle that gets a gate first."""

    def changed(folder: Path) -> None:
        edited("enhancement_gate", to=GATE)(folder)
        change(folder)

    return changed


def compiled(folder: Path) -> None:
    """Turn a bundle into one of engines. The engine files are the graphs under another name."""
    edited("target", "engine", to="tensorrt-rtx")(folder)
    edited(*WHOLE_BUILD, to=BUILD)(folder)
    for stage in ("encoder", "enhancer", "decoder"):
        (folder / f"{stage}.onnx").rename(folder / f"{stage}.engine")
        edited("stages", stage, "graph", "file", to=f"{stage}.engine")(folder)
    edited(*PROFILE, to={"B": SIZES, "P": SIZES})(folder)


def of_engines(change: Change) -> Change:
    """Return a change to a bundle that is turned into one of engines first."""

    def changed(folder: Path) -> None:
        compiled(folder)
        change(folder)

    return changed


def with_first_resize(size: int, *, square: bool = True) -> Change:
    """Return a change that resizes the image before its resize."""

    def change(folder: Path) -> None:
        edited("requires", to=["released_input"])(folder)
        edited("preprocessing", "first_resize", to={**FIRST_RESIZE, "size": size})(folder)
        if square:
            edited("preprocessing", "resize", to="square")(folder)
            edited("preprocessing", "pad", to="none")(folder)

    return change


def with_golden_prompts(count: int) -> Change:
    """Return a change that repeats the golden file's prompts until there are `count`."""

    def change(folder: Path) -> None:
        path = folder / "golden.safetensors"
        tensors = load_file(path)
        for name in ("point_coords", "point_labels", "mask_input", "low_res_masks"):
            tensors[name] = np.resize(tensors[name], (count, *tensors[name].shape[1:]))
        tensors["iou_predictions"] = np.resize(tensors["iou_predictions"], (count, 4))
        replaced(path.name, save(tensors))(folder)

    return change


def in_another_meaning(folder: Path) -> None:
    """Require a feature, and change the type of another field."""
    edited("requires", to=["levels"])(folder)
    edited("model", to=[])(folder)


def in_another_version(folder: Path) -> None:
    """Give `requires` another type in a newer version."""
    edited("version", to=2)(folder)
    edited("requires", to={"levels": 3})(folder)


REMOVED = ("format", "version", "model", "stages", "coordinates", "target", "parity", "golden")

CHANGES: dict[str, Change] = {
    **{name: edited(*keys, to=value) for name, (*keys, value) in MANIFESTS.items()},
    **{name: of_engines(edited(*keys, to=value)) for name, (*keys, value) in ENGINES.items()},
    **{name: gated(edited(*keys, to=value)) for name, (*keys, value) in GATES.items()},
    "a gate without a bias": gated(edited("enhancement_gate", "bias", remove=True)),
    "a build without a source": of_engines(edited(*WHOLE_BUILD, "source", remove=True)),
    **{f"without {key}": edited(key, remove=True) for key in REMOVED},
    "without a label": edited("coordinates", "labels", "padding", remove=True),
    "a first resize that keeps the aspect": with_first_resize(32, square=False),
    "a first resize beyond the square": with_first_resize(65),
    "an endless first resize": with_first_resize(2**62),
    "a feature that changes a field": in_another_meaning,
    "a version that changes requires": in_another_version,
    "without a stage": edited("stages", "enhancer", remove=True),
    "a flipped graph": flipped("encoder.onnx"),
    "a flipped golden": flipped("golden.safetensors"),
    "a missing graph": lambda folder: (folder / "decoder.onnx").unlink(),
    "a link to nothing": linked_to("none.onnx"),
    "a link to itself": linked_to("decoder.onnx"),
    "a link to a folder": linked_to(".."),
    "a link to a device": linked_to("/dev/null"),
    "a link to another file": linked_to("encoder.onnx"),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "no folder": shutil.rmtree,
    "an array": manifest_of(b"[]"),
    "a number": manifest_of(b"3"),
    "null": manifest_of(b"null"),
    "an object": manifest_of(b'{"a": 1}'),
    "weights above": replaced("encoder.onnx", external(b"../weights.data")),
    "weights anywhere": replaced("encoder.onnx", external(b"/etc/pass'wd")),
    "weights undeclared": replaced("encoder.onnx", external(b"encoder.onnx.data")),
    "weights nowhere": replaced("encoder.onnx", external(None)),
    "no graph": replaced("encoder.onnx", b"\x08\x09"),
    "a graph cut off": replaced("encoder.onnx", b"\x3a\xff\xff\xff\xff\x0f"),
    "a number without end": replaced("encoder.onnx", b"\x08" + b"\xff" * 20),
    "a group": replaced("encoder.onnx", b"\x3b\x3c"),
    "field 0": replaced("encoder.onnx", b"\x02\x00"),
    "text for a graph": replaced("encoder.onnx", b"this is no protobuf"),
    "a golden of many prompts": with_golden_prompts(65),
    "a golden without tensors": replaced("golden.safetensors", (2).to_bytes(8, "little") + b"{}"),
}
PARSERS_OWN: dict[str, Change] = {
    "nothing": manifest_of(b""),
    "half a brace": manifest_of(b"{"),
    "no text": manifest_of(b"\xff\xfe"),
    "bad text": manifest_of(b'{"format": "\xff"}'),
    "a word": manifest_of(b"hello"),
    "NaN": manifest_of(b'{"format": "glesam-bundle", "version": 1, "x": NaN}'),
    "endless nesting": manifest_of(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "an empty graph": replaced("encoder.onnx", b""),
    "no golden": replaced("golden.safetensors", b"golden"),
    "a golden cut off": replaced("golden.safetensors", (99).to_bytes(8, "little") + b"{}"),
}
"""The messages of these contain the words of each language's own parser, in parentheses."""
