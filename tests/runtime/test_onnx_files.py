"""The scanner reads files that the onnx package writes, and refuses hostile bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from glesam_runtime import BundleError
from glesam_runtime.onnx_files import external_data_locations


def external(name: str, location: str | None) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    if location is not None:
        tensor.external_data.add(key="offset", value="0")
        tensor.external_data.add(key="location", value=location)
    return tensor


def inline(name: str) -> TensorProto:
    return numpy_helper.from_array(np.ones(1000, np.float32), name)


def graph(*initializers: TensorProto, nodes: tuple[onnx.NodeProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], list(initializers))


def everywhere() -> onnx.ModelProto:
    """Return a model with external data in each place that onnx.proto allows."""
    sparse = onnx.SparseTensorProto(
        values=external("v", "sparse-values"), indices=external("i", "sparse-indices")
    )
    node = onnx.NodeProto(op_type="X")
    node.attribute.append(onnx.AttributeProto(name="t", t=external("t", "attribute-t")))
    node.attribute.append(
        onnx.AttributeProto(name="ts", tensors=[inline("a"), external("b", "attribute-tensors")])
    )
    inner = graph(nodes=(onnx.NodeProto(op_type="Y"),))
    inner.node[0].attribute.append(
        onnx.AttributeProto(name="g", graphs=[graph(external("d", "deep"))])
    )
    node.attribute.append(onnx.AttributeProto(name="g", g=inner))
    node.attribute.append(onnx.AttributeProto(name="s", sparse_tensor=sparse))
    node.attribute.append(onnx.AttributeProto(name="ss", sparse_tensors=[sparse]))
    top = graph(inline("w"), external("x", "initializer"), nodes=(node,))
    top.sparse_initializer.append(sparse)
    model = helper.make_model(top)
    function = model.functions.add(name="f", domain="d")
    function.node.add(op_type="Z").attribute.append(
        onnx.AttributeProto(name="t", t=external("f", "function"))
    )
    function.attribute_proto.append(
        onnx.AttributeProto(name="p", t=external("p", "function-default"))
    )
    training = model.training_info.add()
    training.initialization.CopyFrom(graph(external("ti", "training-initialization")))
    training.algorithm.CopyFrom(graph(external("ta", "training-algorithm")))
    return model


def test_every_place_is_found(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(everywhere().SerializeToString())
    assert external_data_locations(path) == {
        "sparse-values",
        "sparse-indices",
        "attribute-t",
        "attribute-tensors",
        "deep",
        "initializer",
        "function",
        "function-default",
        "training-initialization",
        "training-algorithm",
    }


def test_what_the_onnx_package_saves(tmp_path: Path) -> None:
    model = helper.make_model(graph(inline("a"), inline("b")))
    onnx.save(model, tmp_path / "inline.onnx")
    assert external_data_locations(tmp_path / "inline.onnx") == frozenset()
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    assert external_data_locations(tmp_path / "m.onnx") == {"m.data"}


def test_external_without_a_location_counts(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph(external("x", None))).SerializeToString())
    assert external_data_locations(path) == {""}


def test_of_a_repeated_key_the_last_counts(tmp_path: Path) -> None:
    tensor = external("x", "decoy")
    # The same entry again, key first named "offset", then "location": protobuf keeps the last.
    hidden = b"\x0a\x06offset" + b"\x12\x07../evil" + b"\x0a\x08location"
    raw = tensor.SerializeToString() + b"\x6a" + bytes([len(hidden)]) + hidden
    model = helper.make_model(graph())
    model.graph.initializer.append(TensorProto.FromString(raw))
    by_hand = b"\x3a" + bytes([len(raw) + 2]) + b"\x2a" + bytes([len(raw)]) + raw
    path = tmp_path / "m.onnx"
    path.write_bytes(by_hand)
    assert external_data_locations(path) == {"decoy", "../evil"}


HOSTILE = {
    "empty": b"",
    "text": b"this is no protobuf",
    "no graph": onnx.ModelProto(ir_version=9, producer_name="x").SerializeToString(),
    "length past the end": b"\x3a\xff\xff\xff\xff\x0f",
    "endless number": b"\x08" + b"\xff" * 20,
    "group": b"\x3b\x3c",
    "field 0": b"\x02\x00",
    "half a fixed64": b"\x09\x00\x00",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(BundleError, match=r"m\.onnx: not an ONNX graph"):
        external_data_locations(path)


def test_a_hundred_thousand_levels(tmp_path: Path) -> None:
    """External data is found in graphs that are nested deeper than any recursion limit."""
    body = b"\x2a" + _sized(external("x", "bottom").SerializeToString())
    pieces, length = [body], len(body)
    for _ in range(30_000):  # graph > node > attribute > graph
        for field in (b"\x32", b"\x2a", b"\x0a"):
            head = field + _length(length)
            pieces.append(head)
            length += len(head)
    pieces.append(b"\x3a" + _length(length))
    path = tmp_path / "m.onnx"
    path.write_bytes(b"".join(reversed(pieces)))
    assert external_data_locations(path) == {"bottom"}


def _length(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _sized(payload: bytes) -> bytes:
    return _length(len(payload)) + payload


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_altered_files_are_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = bytearray(everywhere().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "altered.onnx"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        locations = external_data_locations(path)
    except BundleError:
        return
    assert all(isinstance(location, str) for location in locations)
