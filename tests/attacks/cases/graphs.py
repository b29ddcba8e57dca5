"""Graphs: cut, replaced, of another interface, with data outside, and with strange names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..case import Case, Place, accepted
from ..damage import cut, flipped, nested, sign, sparse

_Model = onnx.ModelProto


def _bytes(
    name: str,
    change: Callable[[Place, bytes], bytes],
    says: str = "encoder",
    backend: str = "onnxruntime",
    **further: Any,
) -> Case:
    """Return the case of an encoder of other bytes; its hash is right."""

    def make(place: Place) -> list[Any]:
        path = place.bundle() / "encoder.onnx"
        path.write_bytes(change(place, path.read_bytes()))
        return _command(place, backend)

    return Case("graph", name, make, says, **further)


def _command(place: Place, backend: str = "onnxruntime") -> list[Any]:
    bundle = sign(place.bundle())
    return [place.photo(), "--points", "9,9", *place.engine(bundle, backend)]


def altered(
    name: str,
    change: Callable[[_Model], object],
    says: str = "encoder",
    stage: str = "encoder",
    kind: str = "graph",
    **further: Any,
) -> Case:
    """Return the case of a graph that `change` alters; its hash is right."""

    def make(place: Place) -> list[Any]:
        path = place.bundle() / f"{stage}.onnx"
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())
        return _command(place)

    return Case(kind, name, make, says, **further)


def _path(name: str, change: Callable[[Path, Place], object], says: str, **further: Any) -> Case:
    """Return the case of an encoder.onnx that is something else than a file."""

    def make(place: Place) -> list[Any]:
        path = place.bundle() / "encoder.onnx"
        change(path, place)
        return place.command(bundle=path.parent)

    return Case("graph", name, make, says, **further)


def _instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _external(location: str | None, **entries: str) -> Callable[[_Model], None]:
    """Let the first weight lie at this place of another file."""

    def change(model: _Model) -> None:
        _point_outside(model.graph.initializer[0], location, **entries)

    return change


def _point_outside(tensor: TensorProto, location: str | None, **entries: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    given = {} if location is None else {"location": location}
    for key, value in (*given.items(), *entries.items()):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _hidden(model: _Model) -> None:
    """Name external data in an attribute of a node in a graph in an attribute of a node."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    _point_outside(tensor, "../secret")
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor)],
        "inner",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, [4])],
    )
    condition = numpy_helper.from_array(np.asarray(True), "condition")
    model.graph.initializer.append(condition)
    branch = {"then_branch": inner, "else_branch": inner}
    model.graph.node.append(helper.make_node("If", ["condition"], ["unused"], **branch))


def _in_function(model: _Model) -> None:
    """Name external data in a function of the model."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
    _point_outside(tensor, "/etc/passwd")
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    opsets = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("evil", "f", [], ["c"], [node], opsets))


def _in_sparse(model: _Model) -> None:
    """Name external data in a sparse weight."""
    sparse_tensor = model.graph.sparse_initializer.add()
    _point_outside(sparse_tensor.values, "../secret")


def _shape(where: str, index: int, axis: int, size: int) -> Callable[[_Model], None]:
    """Declare another size of an axis of an input or output."""

    def change(model: _Model) -> None:
        value = getattr(model.graph, where)[index]
        value.type.tensor_type.shape.dim[axis].dim_value = size

    return change


def _typed(where: str, element: int) -> Callable[[_Model], None]:
    """Declare another type of numbers of an input or output."""

    def change(model: _Model) -> None:
        getattr(model.graph, where)[0].type.tensor_type.elem_type = element

    return change


def _sequence(model: _Model) -> None:
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.SetInParent()


def _further_input(model: _Model) -> None:
    model.graph.input.append(helper.make_tensor_value_info("x\x1b[2J", TensorProto.FLOAT, [1]))


def _renamed(model: _Model) -> None:
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "image_embeddings":
                node.output[index] = "image\x1b[2J\r\n"
    model.graph.output[0].name = "image\x1b[2J\r\n"


def _operator(op: str, domain: str = "") -> Callable[[_Model], None]:
    return lambda model: model.graph.node.add(
        op_type=op, domain=domain, input=["image"], output=["o"], name="n\x1b[2J"
    )


def _tile(repeats: int) -> Callable[[_Model], None]:
    """Compute a tensor of many times the image's size."""

    def change(model: _Model) -> None:
        sizes = np.asarray([1, 1, repeats, repeats], np.int64)
        model.graph.initializer.append(numpy_helper.from_array(sizes, "repeats"))
        node = helper.make_node("Tile", ["image", "repeats"], ["much"])
        model.graph.node.insert(0, node)
        least = helper.make_node("ReduceMin", ["much"], ["least"], keepdims=0)
        model.graph.node.insert(1, least)
        model.graph.node[2].input[0] = "sum"
        model.graph.node.insert(2, helper.make_node("Add", ["image", "least"], ["sum"]))

    return change


def _weight(dimensions: list[int]) -> Callable[[_Model], None]:
    def change(model: _Model) -> None:
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dimensions)

    return change


def _cycle(model: _Model) -> None:
    model.graph.node[0].input[0] = "image_embeddings"


def _messages(depth: int) -> bytes:
    """Return a model whose graph holds a node that holds a graph, and so on."""
    content = b""
    for _ in range(depth):
        for field in (6 << 3 | 2, 5 << 3 | 2, 1 << 3 | 2):  # g of Attribute, attribute, node
            content = bytes([field]) + _varint(len(content)) + content
    return bytes([7 << 3 | 2]) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number >= 0x80:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


_VARINT = b"\xff" * 9 + b"\x7f"
CASES = [
    _bytes("empty", lambda *_: b""),
    _bytes("one byte", lambda *_: b"\x08"),
    _bytes("noise", lambda place, _: place.random.randbytes(5000)),
    _bytes("text", lambda *_: nested(5000).encode()),
    _bytes("a number of ten bytes", lambda *_: b"\x08" + _VARINT + b"\x01"),
    _bytes("a field of 2^63 bytes", lambda *_: b"\x3a" + _VARINT),
    _bytes("field number 0", lambda *_: b"\x00\x00"),
    _bytes("a group that never ends", lambda *_: b"\x3b" * 50_000),
    _bytes("messages nested 4000 deep", lambda *_: _messages(4000)),
    _bytes("a pickle", lambda *_: b"cos\nsystem\n(S'touch witness'\ntR."),
    _bytes("a graph and more", lambda _, sound: sound + b"\x00" * 99),
    _bytes("a graph twice", lambda _, sound: sound + sound),
    _bytes("the decoder", lambda place, _: (place.sample / "decoder.onnx").read_bytes()),
    _bytes("cut, for OpenVINO", lambda _, sound: sound[:2000], backend="openvino"),
    _bytes("noise, for OpenVINO", lambda p, _: p.random.randbytes(5000), backend="openvino"),
    _bytes("a graph for TensorRT", lambda _, sound: sound, "onnx", backend="tensorrt"),
    altered("other names", _renamed),
    altered("no output", lambda model: model.graph.ClearField("output")),
    altered("no input", lambda model: model.graph.ClearField("input")),
    altered("no nodes", lambda model: model.graph.ClearField("node")),
    altered("no graph", lambda model: model.ClearField("graph")),
    altered("a further input", _further_input),
    altered("a further output", lambda m: m.graph.output.append(m.graph.input[0])),
    altered("another size of the image", _shape("input", 0, 2, 128)),
    altered("an image of 2^62 pixels a side", _shape("input", 0, 2, 1 << 62)),
    altered("a negative size", _shape("input", 0, 2, -64), **accepted()),
    altered("another size of the latent", _shape("output", 0, 1, 128), **accepted()),
    altered(
        "masks of another size", _shape("output", 0, 2, 99), "decoder", "decoder", **accepted()
    ),
    altered("an output of doubles", _typed("output", 11)),
    altered("an input of strings", _typed("input", 8)),
    altered("an input that is a sequence", _sequence),
    altered("an operator that commands a terminal", _operator("Evil\x1b[2J\x9b")),
    altered("an operator of another domain", _operator("Evil", "com.evil\x07\n")),
    altered("an operator that runs Python", _operator("PyOp", "pyopadd")),
    altered("opset 999", lambda model: setattr(model.opset_import[0], "version", 999)),
    altered("IR version 2^62", lambda model: setattr(model, "ir_version", 1 << 62)),
    altered("a weight of 2^62 numbers", _weight([1 << 31, 1 << 31])),
    altered("a weight of -1 numbers", _weight([-1])),
    altered("a cycle", _cycle),
    altered("a tensor of 2^45 numbers", _tile(1 << 22), "encoder"),
    altered("a name of 3 MB", lambda m: m.graph.node.add(op_type="E" * 3_000_000, output=["o"])),
    altered("data of the parent folder", _external("../secret"), "weights from"),
    altered("data of /etc", _external("/etc/passwd"), "weights from"),
    altered("data of no file", _external(None), "weights from"),
    altered("data of the folder itself", _external("."), "weights from"),
    altered("data of another stage", _external("decoder.onnx"), "weights from"),
    altered("data of the manifest", _external("manifest.json", offset="0"), "weights from"),
    altered("data of a terminal's command", _external("\x1b]0;owned\x07\n"), "weights from"),
    altered(
        "data in memory of the process",
        _external("*/_ORT_MEM_ADDR_/*", offset="4096", length="64"),
        "weights from",
    ),
    altered("data in a graph in a node", _hidden, "weights from"),
    altered("data in a function", _in_function, "weights from"),
    altered("data in a sparse weight", _in_sparse, "weights from"),
    _path("a FIFO", lambda path, _: _instead(path, os.mkfifo), "encoder"),
    _path("a folder", lambda path, _: _instead(path, Path.mkdir), "encoder"),
    _path("no file", lambda path, _: path.unlink(), "missing"),
    _path("a link to itself", lambda path, _: _instead(path, lambda p: p.symlink_to(p)), "encoder"),
    _path(
        "a link to /dev/zero",
        lambda p, _: _instead(p, lambda p: p.symlink_to("/dev/zero")),
        "encoder",
    ),
    _path(
        "a link to a secret",
        lambda path, place: _instead(path, lambda p: p.symlink_to(place.secret)),
        "encoder",
    ),
    _path(
        "a link to the right bytes",
        lambda path, place: _instead(path, lambda p: p.symlink_to(place.sample / p.name)),
        "",
        codes=(0,),
    ),
    _path("10 GB of nothing", lambda path, _: sparse(path, 10 << 30), "encoder"),
    _path(
        "a stage's file of another stage",
        lambda path, _: shutil.copy(path.with_name("decoder.onnx"), path),
        "encoder",
    ),
    *(_bytes(f"cut {n}", lambda place, sound: cut(sound, place.random)) for n in range(8)),
    *(
        _bytes(
            f"{bits} flipped bits, {n}",
            lambda p, s, bits=bits: flipped(s, p.random, bits),
            **accepted(says=""),
        )
        for bits in (1, 40)
        for n in range(6)
    ),
    *(
        _bytes(
            f"flipped bits at the end, {n}",
            lambda p, s: s[:-300] + flipped(s[-300:], p.random, 2),
            **accepted(says=""),
        )
        for n in range(6)
    ),
]
