"""Manifests, graphs, golden files and folders of the second list."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import struct
import tarfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load, save

from ..case import Case, Place, accepted
from ..damage import Raw, changed, manifest_of, sign, sparse
from .graphs import altered

_Model = onnx.ModelProto


def _field(path: str, value: Any, says: str = "manifest|bundle", **further: Any) -> Case:
    """Return the case of one changed value in the manifest."""
    spelled = value.text if isinstance(value, Raw) else json.dumps(value)
    name = f"{path} = {str(spelled)[:60]}".encode("ascii", "backslashreplace").decode()

    def make(place: Place) -> list[Any]:
        bundle = place.bundle()
        content = changed(manifest_of(place.sample), path, value)
        (bundle / "manifest.json").write_bytes(content)
        return place.command(bundle=bundle)

    return Case("second manifest", name, make, says, **further)


def _text(name: str, change: Callable[[bytes], bytes], **further: Any) -> Case:
    """Return the case of a manifest of other bytes."""

    def make(place: Place) -> list[Any]:
        path = place.bundle() / "manifest.json"
        path.write_bytes(change(path.read_bytes()))
        return place.command(bundle=path.parent)

    return Case("second manifest", name, make, "manifest|bundle", **further)


def _folder(
    name: str, change: Callable[[Path, Place], Any], says: str = "bundle", **further: Any
) -> Case:
    """Return the case of a folder that `change` alters; if it returns a path, that is given."""

    def make(place: Place) -> list[Any]:
        bundle = place.bundle()
        given = change(bundle, place)
        return place.command(bundle=given if isinstance(given, Path | str) else bundle)

    return Case("second bundle", name, make, says, **further)


_model = partial(altered, kind="second graph")


def _golden(name: str, change: Callable[[bytes], bytes], **further: Any) -> Case:
    """Return the case of a golden file of other bytes; its hash is right."""

    def make(place: Place) -> list[Any]:
        path = place.bundle() / "golden.safetensors"
        path.write_bytes(change(path.read_bytes()))
        return ["--selftest", *place.engine(sign(place.bundle()))]

    return Case("second golden", name, make, **{"says": "golden", **further})


def _header(name: str, change: Callable[[dict[str, Any]], Any], **further: Any) -> Case:
    """Return the case of a golden file whose header `change` alters, or returns as bytes."""

    def altered(sound: bytes) -> bytes:
        size = int.from_bytes(sound[:8], "little")
        header = json.loads(sound[8 : 8 + size])
        given = change(header)
        text = given if isinstance(given, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + sound[8 + size :]

    return _golden(name, altered, **further)


def _tensors(name: str, change: Callable[[dict[str, Any]], object], **further: Any) -> Case:
    """Return the case of a golden file whose tensors `change` alters."""

    def altered(sound: bytes) -> bytes:
        tensors = load(sound)
        change(tensors)
        return save(tensors)

    return _golden(name, altered, **further)


def _doubled(header: dict[str, Any]) -> bytes:
    """Name one tensor twice."""
    text = json.dumps(header).encode()
    return text[:-1] + b', "image": ' + json.dumps(header["image_embeddings"]).encode() + b"}"


def _overlap(header: dict[str, Any]) -> None:
    """Let two tensors share their bytes."""
    header["image_embeddings"]["data_offsets"] = header["enhanced_embeddings"]["data_offsets"]


def _feed(model: _Model, start: int, name: str = "image2") -> None:
    """Let all nodes from `start` on read `name` instead of the image."""
    for node in model.graph.node[start:]:
        for index, each in enumerate(node.input):
            if each == "image":
                node.input[index] = name


def _loop(count: int) -> Callable[[_Model], None]:
    """Add a loop that runs `count` times before the graph."""
    value = helper.make_tensor_value_info

    def change(model: _Model) -> None:
        body = helper.make_graph(
            [
                helper.make_node("Identity", ["go"], ["go_on"]),
                helper.make_node("Add", ["state", "state"], ["next"]),
            ],
            "body",
            [
                value("n", TensorProto.INT64, []),
                value("go", TensorProto.BOOL, []),
                value("state", TensorProto.FLOAT, []),
            ],
            [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [])],
        )
        constants = {"count": np.int64(count), "yes": np.bool_(True), "zero": np.float32(0)}
        for name, number in constants.items():
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(number), name))
        loop = helper.make_node("Loop", ["count", "yes", "zero"], ["final"], body=body)
        model.graph.node.insert(0, loop)
        model.graph.node.insert(1, helper.make_node("Add", ["image", "final"], ["image2"]))
        _feed(model, 2)

    return change


def _blown_up(model: _Model) -> None:
    """Make a constant of 2^42 numbers from a shape."""
    shape = numpy_helper.from_array(np.asarray([1 << 21, 1 << 21], np.int64), "big")
    model.graph.initializer.append(shape)
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["big"], ["zeros"]))
    model.graph.node.insert(1, helper.make_node("ReduceMax", ["zeros"], ["most"], keepdims=0))
    model.graph.node.insert(2, helper.make_node("Add", ["image", "most"], ["image2"]))
    _feed(model, 3)


def _scaled(factor: float) -> Callable[[_Model], None]:
    """Multiply the image by a number, such as NaN."""

    def change(model: _Model) -> None:
        value = numpy_helper.from_array(np.asarray(factor, np.float32), "factor")
        model.graph.initializer.append(value)
        model.graph.node.insert(0, helper.make_node("Mul", ["image", "factor"], ["image2"]))
        _feed(model, 1)

    return change


def _recursive(model: _Model) -> None:
    """Call a function that calls itself."""
    node = helper.make_node("F", ["x"], ["y"], domain="evil")
    opsets = [helper.make_opsetid("evil", 1)]
    model.functions.append(helper.make_function("evil", "F", ["x"], ["y"], [node], opsets))
    model.opset_import.append(helper.make_opsetid("evil", 1))
    model.graph.node.insert(0, helper.make_node("F", ["image"], ["image2"], domain="evil"))
    _feed(model, 1)


def _multiplied(depth: int) -> Callable[[_Model], None]:
    """Call a function that calls the next one ten times, and so on, `depth` deep."""

    def change(model: _Model) -> None:
        opsets = [helper.make_opsetid("evil", 1), helper.make_opsetid("", 18)]
        names = ["x", *(f"t{n}" for n in range(9)), "y"]
        for level in range(depth):
            op, domain = ("Neg", "") if level == depth - 1 else (f"F{level + 1}", "evil")
            nodes = [
                helper.make_node(op, [first], [second], domain=domain)
                for first, second in itertools.pairwise(names)
            ]
            function = helper.make_function("evil", f"F{level}", ["x"], ["y"], nodes, opsets)
            model.functions.append(function)
        model.opset_import.append(helper.make_opsetid("evil", 1))
        model.graph.node.insert(0, helper.make_node("F0", ["image"], ["image2"], domain="evil"))
        _feed(model, 1)

    return change


def _many_nodes(model: _Model) -> None:
    last = "image"
    for n in range(20_000):
        model.graph.node.insert(n, helper.make_node("Identity", [last], [f"i{n}"]))
        last = f"i{n}"
    _feed(model, 20_000, last)


def _terminate(pid: int, _: Place) -> None:
    time.sleep(2)
    os.kill(pid, signal.SIGTERM)


def _endless(name: str, change: Callable[[_Model], object]) -> Case:
    """Return the case of a graph that never ends, which SIGTERM must end."""
    expected = {"codes": (143,), "seconds": 8, "separate": True, "during": _terminate}
    return _model(name, change, "terminated", **expected)


def _external(offset: str, length: str) -> Callable[[Path, Place], object]:
    """Let a weight lie at a place of a file in the bundle."""

    def change(bundle: Path, _: Place) -> None:
        path = bundle / "encoder.onnx"
        model = onnx.load(path)
        tensor = model.graph.initializer[0]
        (bundle / "encoder.onnx.data").write_bytes(bytes(64))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        values = {"location": "encoder.onnx.data", "offset": offset, "length": length}
        for key, value in values.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        path.write_bytes(model.SerializeToString())
        manifest = manifest_of(bundle)
        named = {"file": "encoder.onnx.data", "bytes": 64, "sha256": "0" * 64}
        manifest["stages"]["encoder"]["data"] = named
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        sign(bundle)

    return change


def _tar(bundle: Path, place: Place) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(bundle, "bundle")
    return place.write("bundle.tar", buffer.getvalue())


def _crowd(bundle: Path, _: Place) -> None:
    for n in range(3000):
        (bundle / f"{n}.onnx").touch()


def _chain(bundle: Path, _: Place) -> Path:
    """Give a link to a link, and so on, 39 times."""
    last = bundle
    for n in range(39):
        link = bundle.with_name(f"link{n}")
        link.symlink_to(last)
        last = link
    return last


def _stdin_as_decoder(bundle: Path, _: Place) -> None:
    (bundle / "decoder.onnx").unlink()
    (bundle / "decoder.onnx").symlink_to("/proc/self/fd/0")


def _longer(bundle: Path, _: Place) -> None:
    path = bundle / "encoder.onnx"
    sparse(path, 10 << 30, path.read_bytes())


_FILE = "stages.encoder.graph.file"
_FILES = (
    *("decoder.onnx/../encoder.onnx", "encoder.onnx/", "encoder.onnx\0.png", "..\\encoder.onnx"),
    *("C:\\encoder.onnx", "C:encoder.onnx", "//host/share/encoder.onnx", "~/encoder.onnx"),
    *("$HOME/encoder.onnx", "file:///etc/passwd", "con", ".", "", " encoder.onnx"),
    *("ENCODER.ONNX", "manifest.json", "golden.safetensors", "/dev/stdin", "\udcff", "\ud800"),
    "x" * 300,
)
_BIG = "9" * 4400
_FIELDS = [
    *(_field(_FILE, name) for name in _FILES),
    _field(_FILE, "./encoder.onnx", **accepted()),
    _field("stages.encoder.graph.sha256", "A" * 64),
    _field("stages.encoder.graph.sha256", "0" * 63 + "\n"),
    _field("stages.encoder.graph.sha256", "\uff10" * 64),
    _field("stages.encoder.graph.bytes", -1),
    _field("stages.encoder.graph.bytes", 1e3),
    _field("stages.encoder.graph.bytes", True),
    _field("version", 1.0, **accepted()),
    _field("version", True),
    _field("version", [1]),
    _field("version", Raw(_BIG)),
    _field("version", Raw("1e999")),
    _field("requires", "levels"),
    _field("requires", ["levels"] * 10_000, **accepted()),
    _field("requires", ["\u001b[2J\u202e" * 1000]),
    _field("requires", [None]),
    _field("stages", []),
    _field("stages", {}),
    _field("stages.encoder", Raw('{"file": 1, "file": 2}')),
    _field("preprocessing.image_size", 0),
    _field("preprocessing.image_size", 1 << 40),
    _field("preprocessing.image_size", 64.5),
    _field("preprocessing.mean", []),
    _field("preprocessing.mean", ["0", "0", "0"]),
    _field("preprocessing.std", [0, 0, 0]),
    _field("preprocessing.std", [-1, -1, -1]),
    _field("preprocessing.std", [1e-300, 1e-300, 1e-300]),
    _field("golden.file", ".."),
    _field("golden.sha256", ""),
]
_MANY_FIELDS = b"".join(b', "x%d": {}' % n for n in range(100_000))
_TEXTS = [
    _text("nothing but a byte order mark", lambda _: b"\xef\xbb\xbf"),
    _text("UTF-16 without a mark", lambda sound: sound.decode().encode("utf-16-le")),
    _text("15 MB of spaces", lambda sound: b" " * (15 << 20) + sound, **accepted()),
    _text("10^5 unknown fields", lambda s: s.rstrip()[:-1] + _MANY_FIELDS + b"}", **accepted()),
    _text(
        "a key of 5 MB",
        lambda sound: sound.rstrip()[:-1] + b', "' + b"k" * (5 << 20) + b'": 1}',
        **accepted(),
    ),
    _text("all stages are one", lambda sound: sound.replace(b"decoder.onnx", b"encoder.onnx")),
    _text("line ends of Windows", lambda sound: sound.replace(b"\n", b"\r\n"), codes=(0,)),
    _text("a vertical tab", lambda sound: sound.replace(b"{", b"{\x0b", 1)),
    _text("a comma at the end", lambda sound: sound.rstrip()[:-1] + b",}"),
]
_FOLDERS = [
    _folder("a tar", _tar),
    _folder("a path of 500 dots", lambda bundle, _: f"{bundle}{'/.' * 500}", codes=(0,)),
    _folder("3000 further files", _crowd, codes=(0,)),
    _folder("a chain of 39 links", _chain, codes=(0,)),
    _folder("the manifest itself", lambda bundle, _: bundle / "manifest.json", codes=(0, 2)),
    _folder("the encoder itself", lambda bundle, _: bundle / "encoder.onnx", ""),
    _folder("a file system of processes", lambda *_: "/proc", "/proc"),
    _folder("the folder above", lambda bundle, _: bundle.parent, "inputs"),
    _folder(
        "the manifest in capitals",
        lambda bundle, _: [(bundle / "manifest.json").rename(bundle / "MANIFEST.JSON")],
    ),
    _folder("an encoder of one byte", lambda b, _: (b / "encoder.onnx").write_bytes(b"x"), "encod"),
    _folder("an encoder that grew to 10 GB", _longer, "encoder"),
    _folder("a decoder that is standard input", _stdin_as_decoder, "decoder"),
    _folder("external data at a negative place", _external("-8", "64"), "encoder"),
    _folder("external data of 2^62 bytes", _external("0", str(1 << 62)), "encoder"),
    _folder("external data at 2^64", _external(str(1 << 64), "64"), "encoder"),
    _folder("external data at a word", _external("\x1b[2J", "many"), "encoder"),
]
_GRAPHS = [
    _model("a loop of a million steps", _loop(1_000_000), "", seconds=10, **accepted()),
    _endless("a loop of 2^62 steps", _loop(1 << 62)),
    _endless("functions that call 10^9 nodes", _multiplied(9)),
    _model("functions that call 100 nodes", _multiplied(2), "", **accepted()),
    _model("a function that calls itself", _recursive),
    _model("a constant of 2^42 numbers", _blown_up),
    _model("an image of NaN", _scaled(float("nan")), "NaN|encoder"),
    _model("an image of infinity", _scaled(float("inf")), "", **accepted()),
    _model("an image of 1e38", _scaled(1e38), "", **accepted()),
    _model("20000 nodes", _many_nodes, "", seconds=10, **accepted()),
    _model(
        "an output that no node computes", lambda m: setattr(m.graph.output[0], "name", "nobody")
    ),
    _model("the same node twice", lambda m: m.graph.node.append(m.graph.node[0])),
    _model(
        "the same weight twice",
        lambda m: m.graph.initializer.append(m.graph.initializer[0]),
        **accepted(),
    ),
    _model(
        "a weight of strings",
        lambda m: m.graph.initializer.append(
            helper.make_tensor("s", TensorProto.STRING, [1], [b"\x1b[2J"])
        ),
        **accepted(),
    ),
    _model(
        "metadata of escapes",
        lambda m: m.metadata_props.add(key="\x1b[2J", value="\x07" * 1000),
        codes=(0,),
    ),
    _model(
        "a description of 5 MB",
        lambda m: setattr(m, "doc_string", "\x1b" * (5 << 20)),
        codes=(0,),
    ),
    _model("no opset", lambda m: m.ClearField("opset_import"), **accepted()),
    _model("opset 1", lambda m: setattr(m.opset_import[0], "version", 1), **accepted()),
    _model("IR version 1", lambda m: setattr(m, "ir_version", 1), **accepted()),
]
_ANY: dict[str, Any] = accepted(codes=(0, 1, 2), says="")
_GOLDENS = [
    _header("two tensors in one place", _overlap),
    _header("a tensor named twice", _doubled, **_ANY),
    _header("spaces behind the header", lambda h: json.dumps(h).encode() + b" " * 5000, codes=(0,)),
    _header("zeros behind the header", lambda h: json.dumps(h).encode() + bytes(50)),
    _header("metadata of numbers", lambda h: h.update(__metadata__={"a": 1})),
    _header("metadata of 10 MB", lambda h: h.update(__metadata__={"a": "x" * (10 << 20)}), **_ANY),
    _header("a shape of floats", lambda h: h["image"].update(shape=[1.5, 2, 3])),
    _header("a shape of nothing", lambda h: h["image"].update(shape=[])),
    _header("a shape of true", lambda h: h["image"].update(shape=[True, 2, 3])),
    _header("three offsets", lambda h: h["image"].update(data_offsets=[0, 1, 2])),
    _header("offsets of 2^64", lambda h: h["image"].update(data_offsets=[1 << 64, 1 << 65])),
    _header("no type", lambda h: [h["image"].pop("dtype")]),
    _golden("bytes behind the tensors", lambda sound: sound + bytes(100)),
    _golden("a file of zeros", lambda sound: bytes(len(sound))),
    _golden("gzip", lambda _: b"\x1f\x8b\x08" + bytes(500)),
    _tensors("an image of no channel", lambda t: t.update(image=np.zeros((9, 9, 0), np.uint8))),
    _tensors("an image of 5 axes", lambda t: t.update(image=np.zeros((1, 1, 9, 9, 3), np.uint8))),
    _tensors(
        "points of three numbers",
        lambda t: t.update(point_coords=np.zeros((1, 2, 3), np.float32)),
    ),
    _tensors(
        "points of integers",
        lambda t: t.update(point_coords=t["point_coords"].astype(np.int64)),
        **_ANY,
    ),
    _tensors(
        "4 million points",
        lambda t: t.update(
            point_coords=np.zeros((1, 4_000_000, 2), np.float32),
            point_labels=np.ones((1, 4_000_000), np.float32),
        ),
        codes=(1, 2),
        says="",
        mebibytes=400,
    ),
]
CASES = [*_FIELDS, *_TEXTS, *_FOLDERS, *_GRAPHS, *_GOLDENS]
