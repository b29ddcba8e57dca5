"""Checkpoints for `glesam-export info`: pickles that run code, bombs, and broken headers."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ..case import Case, Place, accepted
from ..damage import cut, flipped, nested, sparse


def _file(
    name: str, file: str, content: Callable[[Place], bytes | str], says: str = "", **further: Any
) -> Case:
    """Return the case of a file with this content."""
    return _made(
        name, lambda place: [place.write(file, content(place))], says or "inputs", **further
    )


def _made(
    name: str, make: Callable[[Place], list[Any]], says: str = "inputs", **further: Any
) -> Case:
    """Return the case of the paths that `make` returns."""
    expected = {"program": "glesam-export", "mebibytes": 300, **further}
    return Case("checkpoint", name, lambda place: ["info", *make(place)], says, **expected)


def _path(
    name: str, file: str, change: Callable[[Path], object], says: str = "inputs", **further: Any
) -> Case:
    """Return the case of a path at which `change` makes something."""

    def make(place: Place) -> list[Any]:
        path = place.inputs / file
        change(path)
        return [path]

    return _made(name, make, says, **further)


class _Runs:
    """An object that runs a function when it is unpickled."""

    def __init__(self, function: Any, *values: Any) -> None:
        self.call = (function, values)

    def __reduce__(self) -> Any:
        return self.call


def _pickled(function: Any, place: Place, *values: Any, protocol: int = 2) -> bytes:
    given = values or (f"touch {place.witness}",)
    return pickle.dumps({"model": _Runs(function, *given)}, protocol)


def _zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _torch(data: bytes, method: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    """Return a file of torch.save with this pickle."""
    return _zipped({"archive/data.pkl": data, "archive/version": b"3\n", **members}, method)


def _bomb(depth: int) -> bytes:
    """Return a pickle of lists that hold the one before ten times."""
    return (
        b"\x80\x02]q\x00"
        + b"".join(
            b"](" + b"h" + bytes([n]) * 1 + (b"h" + bytes([n])) * 9 + b"eq" + bytes([n + 1])
            for n in range(depth)
        )
        + b"."
    )


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("../../witness")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    return buffer.getvalue()


def _safetensors(header: Any, body: int = 64) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _tensor(name: str, shape: list[int], end: int, dtype: str = "F32") -> dict[str, Any]:
    return {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


def _npy(header: str, body: int = 64) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(body)


_SOUND = save({"image_encoder.x": np.zeros((4, 4), np.float32)})
_PICKLED: list[tuple[str, Callable[[Place], bytes]]] = [
    ("runs os.system", lambda place: _pickled(os.system, place)),
    ("runs os.system, in text", lambda place: _pickled(os.system, place, protocol=0)),
    ("runs os.system, protocol 5", lambda place: _pickled(os.system, place, protocol=5)),
    ("runs exec", lambda place: _pickled(exec, place, f"open({str(place.witness)!r}, 'w')")),
    ("runs eval", lambda place: _pickled(eval, place, f"open({str(place.witness)!r}, 'w')")),
    ("opens a file", lambda place: _pickled(open, place, str(place.witness), "w")),
    ("imports a module", lambda _: b"\x80\x02cthis\ns\n."),
    ("runs getattr", lambda _: b"c__builtin__\ngetattr\n(c__builtin__\ndict\nS'clear'\ntR."),
    ("runs torch.load", lambda _: b"ctorch\nload\n(S'/etc/passwd'\ntR."),
    ("runs runpy", lambda _: b"crunpy\nrun_path\n(S'/etc/passwd'\ntR."),
    ("asks for a name with control characters", lambda _: b"cos\x1b[2J\nsys\x07tem\n(S'x'\ntR."),
    ("lists within lists", lambda _: b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
    ("lists ten times in lists", lambda _: _bomb(20)),
    ("a string of 2^60 bytes", lambda _: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x."),
    ("a list of itself", lambda _: b"\x80\x02]q\x00h\x00a."),
    (
        "a number of a million bytes",
        lambda _: b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20) + b".",
    ),
    ("an empty stack", lambda _: b"\x80\x02R."),
]
_NUMPY = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
_SHARDS = {"metadata": {}, "weight_map": {"x": "../secret"}}


def _adapter(name: str, config: str | bytes, says: str = "adapter", **further: Any) -> Case:
    """Return the case of a folder of PEFT with this adapter_config.json."""

    def make(place: Place) -> list[Any]:
        place.write("adapter_config.json", config)
        tensors = {
            f"base_model.model.unet.to_q.lora_{part}.weight": np.zeros((4, 4), np.float32)
            for part in "AB"
        }
        place.write("adapter_model.safetensors", save(tensors))
        return [place.inputs]

    return _made(name, make, says, **further)


def _folder(name: str, says: str = "inputs", **files: str | bytes) -> Case:
    """Return the case of a folder with these files; "__" in a name is a dot."""

    def make(place: Place) -> list[Any]:
        for file, content in files.items():
            place.write(file.replace("__", "."), content)
        return [place.inputs]

    return _made(name, make, says, **accepted())


CASES = [
    *(_file(f"a pickle that {name}", "a.pth", content) for name, content in _PICKLED),
    *(
        _file(f"a zipped pickle that {name}", "a.pt", lambda place, c=content: _torch(c(place)))
        for name, content in _PICKLED
    ),
    _file(
        "a zip whose pickle has 64 MB of zeros",
        "a.pth",
        lambda _: _torch(bytes(64 << 20), zipfile.ZIP_DEFLATED),
        mebibytes=250,
    ),
    _file(
        "a zip with names that lead outside",
        "a.pth",
        lambda _: _torch(b"\x80\x02}.", **{"../../witness": b"x"}),
    ),
    _file("a zip of nothing", "a.pth", lambda _: _zipped({})),
    _file(
        "a zip of 20000 members", "a.pth", lambda _: _zipped({f"a/{n}": b"" for n in range(20_000)})
    ),
    _file(
        "a zip that is cut", "a.pth", lambda place: cut(_torch(pickle.dumps({}, 2)), place.random)
    ),
    _file(
        "TorchScript",
        "a.pt",
        lambda _: _torch(
            b"\x80\x02}.",
            **{"archive/constants.pkl": b"\x80\x02).", "archive/code/m.py": b"import os"},
        ),
    ),
    _file("a tar", "a.pth", lambda _: _tar()),
    _file("an empty state dict", "a.pth", lambda _: pickle.dumps({}, 2)),
    _file("an empty .pth", "a.pth", lambda _: b""),
    _file("noise", "a.pth", lambda place: place.random.randbytes(5000)),
    _file("a picture", "a.pth", lambda place: place.photo().read_bytes()),
    *(
        _file(
            f"safetensors with a header of {size} bytes",
            "a.safetensors",
            lambda _, n=size: struct.pack("<Q", n) + _SOUND[8:],
        )
        for size in (0, 1, 1 << 27, 1 << 60, (1 << 64) - 1)
    ),
    _file("safetensors of nothing", "a.safetensors", lambda _: b""),
    _file(
        "safetensors with a header of brackets",
        "a.safetensors",
        lambda _: _safetensors(nested(50_000).encode()),
    ),
    _file(
        "safetensors with deep metadata",
        "a.safetensors",
        lambda _: _safetensors(b'{"__metadata__":' + nested(50_000).encode() + b"}"),
    ),
    _file(
        "safetensors with a header of numbers", "a.safetensors", lambda _: _safetensors({"x": 5})
    ),
    _file(
        "safetensors of 2^62 x 2^62",
        "a.safetensors",
        lambda _: _safetensors(_tensor("x", [1 << 62, 1 << 62], 64)),
    ),
    _file(
        "safetensors of 2^40 bytes",
        "a.safetensors",
        lambda _: _safetensors(_tensor("x", [1 << 38], 1 << 40)),
    ),
    _file(
        "safetensors of an unknown type",
        "a.safetensors",
        lambda _: _safetensors(_tensor("x", [16], 64, "F1\x1b[2J")),
    ),
    _file(
        "safetensors of a type that torch lacks",
        "a.safetensors",
        lambda _: _safetensors(_tensor("x", [64], 64, "F8_E8M0")),
        **accepted(),
    ),
    _file(
        "safetensors without tensors", "a.safetensors", lambda _: _safetensors({}, 0), **accepted()
    ),
    _file(
        "safetensors with names that command a terminal",
        "a.safetensors",
        lambda _: _safetensors(_tensor("\x1b[2J\x07\u202e", [16], 64)),
        **accepted(),
    ),
    _file(
        "safetensors with a name of 3 MB",
        "a.safetensors",
        lambda _: _safetensors(_tensor("x" * 3_000_000, [16], 64)),
        **accepted(),
    ),
    _file(
        "safetensors that are a pickle", "a.safetensors", lambda place: _pickled(os.system, place)
    ),
    _file(
        "a pickle behind a sound header",
        "a.safetensors",
        lambda place: _SOUND + _pickled(os.system, place),
    ),
    *(
        _file(f"safetensors cut, {n}", "a.safetensors", lambda place: cut(_SOUND, place.random))
        for n in range(4)
    ),
    *(
        _file(
            f"safetensors with flipped bits, {n}",
            "a.safetensors",
            lambda place: flipped(_SOUND, place.random, 2),
            **accepted(),
        )
        for n in range(6)
    ),
    _file(
        "NumPy that holds a pickle",
        "a.npy",
        lambda place: _npy(_NUMPY % ("|O", "(1,)"), 0) + _pickled(os.system, place),
        **accepted(),
    ),
    _file("NumPy with a header of brackets", "a.npy", lambda _: _npy(nested(30_000)), **accepted()),
    _file(
        "NumPy with a header that is called",
        "a.npy",
        lambda _: _npy("__import__('os').system('touch witness')"),
        **accepted(),
    ),
    _file(
        "NumPy of 2^60 numbers",
        "a.npy",
        lambda _: _npy(_NUMPY % ("<f4", "(1152921504606846976,)")),
        **accepted(),
    ),
    _file("NumPy of -1 numbers", "a.npy", lambda _: _npy(_NUMPY % ("<f4", "(-1,)")), **accepted()),
    _file("NumPy of nothing", "a.npy", lambda _: b"", **accepted()),
    _file(
        "NumPy of another version",
        "a.npy",
        lambda _: b"\x93NUMPY\xff\x00" + bytes(60),
        **accepted(),
    ),
    _file("a configuration of brackets", "config.json", lambda _: nested(100_000), **accepted()),
    _file(
        "a configuration that is no UTF-8", "config.json", lambda _: b'{"a": "\xff"}', **accepted()
    ),
    _file(
        "a configuration of NaN",
        "config.json",
        lambda _: '{"in_channels": NaN, "block_out_channels": [1e999]}',
        **accepted(),
    ),
    _file(
        "an index that leads outside",
        "diffusion_pytorch_model.safetensors.index.json",
        lambda _: json.dumps(_SHARDS),
        **accepted(),
    ),
    _folder("a folder of a deep checkpoint.json", checkpoint__json=nested(100_000)),
    _folder(
        "a folder of a checkpoint.json that leads outside",
        checkpoint__json='{"format": "glesam-checkpoint", "version": 1, "sam": "../secret"}',
    ),
    _folder("a folder of a deep manifest", manifest__json=nested(100_000)),
    _folder(
        "a folder of a deep adapter",
        adapter_config__json=nested(100_000),
        adapter_model__safetensors=_SOUND,
    ),
    _adapter("an adapter of NaN", '{"r": NaN, "lora_alpha": NaN}', **accepted()),
    _adapter("an adapter of rank 10^400", '{"r": 1e400, "lora_alpha": 1e308}', **accepted()),
    _adapter(
        "an adapter of a pattern without end",
        json.dumps({"r": 4, "lora_alpha": 4, "rank_pattern": {"(a+)+$": 4, "(" * 5000: 1}}),
        **accepted(),
    ),
    _adapter(
        "an adapter of control characters",
        json.dumps({"r": "\x1b[2J", "peft_type": "\x1b[2J"}),
        **accepted(),
    ),
    _path("a FIFO", "a.pth", os.mkfifo),
    _path("a FIFO of safetensors", "a.safetensors", os.mkfifo),
    _path("a FIFO of NumPy", "a.npy", os.mkfifo),
    _path("a FIFO of JSON", "a.json", os.mkfifo, **accepted()),
    _path("a link to itself", "a.pth", lambda path: path.symlink_to(path)),
    _path("a link to /dev/zero", "a.pth", lambda path: path.symlink_to("/dev/zero")),
    _path("10 GB of nothing", "a.pth", lambda path: sparse(path, 10 << 30)),
    _path("4 GB of nothing as safetensors", "a.safetensors", lambda path: sparse(path, 4 << 30)),
    _path(
        "10 GB of nothing as JSON", "config.json", lambda path: sparse(path, 10 << 30), **accepted()
    ),
    _path("no file", "a.pth", lambda _: None),
    _made("a name of 5000 characters", lambda _: ["c" * 5000], "ccc"),
    _made("a name that commands a terminal", lambda _: ["a\x1b[2J\r\n.pth"], "no such file"),
]
