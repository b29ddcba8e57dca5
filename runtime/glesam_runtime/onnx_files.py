"""Find the files from which an ONNX graph takes its weights, without onnx and without an engine.

An ONNX graph can name any path of the machine as external data, so the names are checked before an
engine opens the file. Only lengths and the fields that lead to a name are decoded. Weights are
skipped, so that a file of gigabytes takes milliseconds.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from glesam_runtime.errors import BundleError

# Field numbers of onnx.proto: message -> {field: the message that it contains}. Other fields are
# skipped.
_CHILDREN: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        22: "SparseTensor",
        23: "SparseTensor",
    },
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_DATA_LOCATION, _EXTERNAL = 14, 1
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class _Malformed(Exception):
    """Raised when the bytes are not protobuf. `external_data_locations` adds the file's name."""


def external_data_locations(path: Path) -> frozenset[str]:
    """Return every location that a tensor of an ONNX file names as external data.

    The location is "" for a tensor that is marked external but names none.

    Args:
        path: an .onnx file.

    Raises:
        BundleError: the file cannot be read or is not an ONNX protobuf.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return frozenset(_locations(data))
    except (OSError, ValueError, _Malformed) as error:  # ValueError: mmap of an empty file
        raise BundleError(f"{path}: not an ONNX graph ({error}); export the bundle again") from (
            error
        )


def _locations(data: mmap.mmap) -> Iterator[str]:
    """Walk the message tree with an explicit stack, because hostile nesting can be deep."""
    found_graph = False
    pending = [("Model", 0, len(data))]
    while pending:
        message, start, end = pending.pop()
        children = _CHILDREN[message]
        external, named = False, False
        for field, wire, value, stop in _fields(data, start, end):
            if message == "Tensor" and field == _DATA_LOCATION and wire == _VARINT:
                external = value == _EXTERNAL
            child = children.get(field)
            if child is None or wire != _LENGTH:
                continue
            if child == "Entry":
                key, text = _entry(data, value, stop)
                if key == b"location":
                    named = True
                    yield text.decode("utf-8", "backslashreplace")
            else:
                found_graph = found_graph or child == "Graph"
                pending.append((child, value, stop))
        if external and not named:
            yield ""
    if not found_graph:
        raise _Malformed("it holds no graph")


def _entry(data: mmap.mmap, start: int, end: int) -> tuple[bytes, bytes]:
    """Return key and value of a string pair. The last of repeated fields counts (protobuf)."""
    key, text = b"", b""
    for field, wire, value, stop in _fields(data, start, end):
        if wire == _LENGTH and field == _ENTRY_KEY:
            key = data[value:stop]
        elif wire == _LENGTH and field == _ENTRY_VALUE:
            text = data[value:stop]
    return key, text


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field number, wire type, value or start of the payload, end of the payload)."""
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        field, wire = tag >> 3, tag & 7
        if field == 0:
            raise _Malformed(f"field number 0 at byte {position}")
        if wire == _VARINT:
            value, position = _varint(data, position, end)
            yield field, wire, value, position
            continue
        if wire == _LENGTH:
            length, position = _varint(data, position, end)
        elif wire == _FIXED64:
            length = 8
        elif wire == _FIXED32:
            length = 4
        else:
            raise _Malformed(f"wire type {wire} at byte {position}")
        if length > end - position:
            raise _Malformed(f"cut off at byte {position}")
        yield field, wire, position, position + length
        position += length


def _varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    """Read a base-128 number of at most 10 bytes. Return it and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise _Malformed(f"cut off at byte {position}")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Malformed(f"number too long at byte {position}")
