"""Checkpoints of the second list: archives, storages and pickles in places where nobody looks."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import pickletools
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from ..case import Case, Place, accepted

_ANY = accepted()


def _made(name: str, make: Callable[[Place], list[Any]], **further: Any) -> Case:
    """Return the case of the paths that `make` returns."""
    expected = {"says": "inputs", "program": "glesam-export", "mebibytes": 300, **further}
    return Case("second checkpoint", name, lambda place: ["info", *make(place)], **expected)


def _file(name: str, file: str, content: Callable[[Place], bytes], **further: Any) -> Case:
    """Return the case of a file with this content."""
    return _made(name, lambda place: [place.write(file, content(place))], **further)


@cache
def _archive() -> dict[str, bytes]:
    """Return the members of a sound file of torch.save."""
    buffer = io.BytesIO()
    torch.save({"image_encoder.x": torch.arange(6.0).reshape(2, 3)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # about a name that is there twice
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _altered(change: Callable[[dict[str, bytes]], object]) -> Callable[[Place], bytes]:
    """Return the file of torch.save whose members `change` alters."""

    def content(_: Place) -> bytes:
        members = dict(_archive())
        change(members)
        return _zip(list(members.items()))

    return content


def _replaced(old: bytes, new: bytes) -> Callable[[Place], bytes]:
    """Replace bytes of the pickle."""

    def change(members: dict[str, bytes]) -> None:
        name = next(name for name in members if name.endswith("data.pkl"))
        assert old in members[name], pickletools.dis(members[name])
        members[name] = members[name].replace(old, new)

    return _altered(change)


def _patched(
    offset: int, value: bytes, signature: bytes = b"PK\x01\x02"
) -> Callable[[Place], bytes]:
    """Replace bytes of the last record of the zip that starts with a signature."""

    def content(_: Place) -> bytes:
        sound = bytearray(_zip(list(_archive().items())))
        start = sound.rindex(signature) + offset
        sound[start : start + len(value)] = value
        return bytes(sound)

    return content


def _saved(value: Any, **options: Any) -> Callable[[Place], bytes]:
    """Return what torch.save writes for an object."""

    def content(_: Place) -> bytes:
        buffer = io.BytesIO()
        torch.save(value() if callable(value) else value, buffer, **options)
        return buffer.getvalue()

    return content


class _Runs:
    """An object that runs a function when it is unpickled."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call[0], self.call[1:]


def _touch(place: Place) -> _Runs:
    return _Runs(os.system, f"touch {place.witness}")


def _within(wrap: Callable[[_Runs], Any], **options: Any) -> Callable[[Place], bytes]:
    """Return the file of torch.save that hides code where `wrap` puts it."""
    return lambda place: _saved(wrap(_touch(place)), **options)(place)


def _two_pickles(place: Place) -> bytes:
    """Return an archive with a second data.pkl under the same name, which runs code."""
    evil = pickle.dumps(_touch(place), 2)
    members = list(_archive().items())
    name = next(name for name, _ in members if name.endswith("data.pkl"))
    return _zip([*members, (name, evil)])


def _other_version(place: Place) -> bytes:
    """Return an archive whose code hides in members that other loaders read."""
    evil = pickle.dumps(_touch(place), 2)
    top = next(iter(_archive())).split("/")[0]
    names = ("constants.pkl", "attributes.pkl", "extra/x.pkl", "code/__torch__.py", ".data/x")
    return _zip([*_archive().items(), *((f"{top}/{name}", evil) for name in names)])


def _bombed(members: dict[str, bytes]) -> None:
    """Declare a storage of 2^40 bytes in 24."""
    name = next(name for name in members if name.endswith("data.pkl"))
    members[name] = members[name].replace(b"K\x06t", b"\x8a\x06\x00\x00\x00\x00\x00\x01t")


def _overlapped(_: Place) -> bytes:
    """Return a zip of 2000 members that all are the same 4 MB of zeros, deflated."""
    packer = zlib.compressobj(9, wbits=-15)
    zeros = bytes(4 << 20)
    packed = packer.compress(zeros) + packer.flush()
    sizes = struct.pack("<III", zlib.crc32(zeros), len(packed), len(zeros))
    local = b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0, 8, 0, 0) + sizes
    name = b"archive/data.pkl"
    head = local + struct.pack("<HH", len(name), 0) + name + packed
    central = b""
    for n in range(2000):
        inner = b"archive/data/%d" % n if n else name
        central += b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0, 8, 0, 0) + sizes
        central += struct.pack("<HHHHHII", len(inner), 0, 0, 0, 0, 0, 0) + inner
    end = struct.pack("<HHHHIIH", 0, 0, 2000, 2000, len(central), len(head), 0)
    return head + central + b"PK\x05\x06" + end


def _tensors(header: Any, body: bytes = bytes(64)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _with_metadata(content: bytes, metadata: dict[str, str]) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = {"__metadata__": metadata, **json.loads(content[8 : 8 + size])}
    return _tensors(header, content[8 + size :])


def _entry(start: int, end: int, shape: Any = None, dtype: Any = "F32") -> dict[str, Any]:
    size = [(end - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": size, "data_offsets": [start, end]}


def _linked(name: str, target: str, *, folder: bool = False) -> Case:
    """Return the case of a link to a place that never ends or that nobody should read."""

    def make(place: Place) -> list[Any]:
        path = place.inputs / "a.pth"
        path.symlink_to(target)
        return [place.inputs if folder else path]

    return _made(name, make, **_ANY)


def _folder(name: str, files: dict[str, Any], **further: Any) -> Case:
    """Return the case of a folder; a value that is no bytes is called with the path."""

    def make(place: Place) -> list[Any]:
        for file, content in files.items():
            path = place.inputs / file
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [place.inputs]

    return _made(name, make, **{**_ANY, **further})


_LORA = save(
    {
        f"unet.down.0.attn1.to_q.lora.{part}.weight": np.zeros((4, 4), np.float32)
        for part in ("down", "up")
    }
)
_PEFT = save(
    {
        f"base_model.model.down.0.attn1.to_q.lora_{part}.weight": np.zeros((4, 4), np.float32)
        for part in "AB"
    }
)
_ADAPTERS = {
    "null": "null",
    "a list": "[]",
    "nothing": "",
    "a rank of 0": '{"r": 0, "lora_alpha": 4}',
    "a rank of -1": '{"r": -1, "lora_alpha": 4}',
    "a rank of 2^70": '{"r": 1180591620717411303424, "lora_alpha": 1}',
    "an alpha of text": '{"r": 4, "lora_alpha": "\\u001b[2J"}',
    "an alpha of null": '{"r": 4, "lora_alpha": null}',
    "an alpha of 1e400": '{"r": 4, "lora_alpha": 1e400}',
    "an alpha of 4400 digits": '{"r": 4, "lora_alpha": ' + "9" * 4400 + "}",
    "a pattern of numbers": '{"r": 4, "lora_alpha": 4, "rank_pattern": [1]}',
    "a pattern of rank 0": '{"r": 4, "lora_alpha": 4, "rank_pattern": {"to_q": 0}}',
    "a pattern that takes years": '{"r": 4, "lora_alpha": 4, "alpha_pattern": '
    '{"((a|d|o|w|n|.)*)*((a|d|o|w|n|.)*)*z": 4}}',
    "rslora of text": '{"r": 4, "lora_alpha": 4, "use_rslora": "no"}',
    "the same key twice": '{"r": 4, "r": 2, "lora_alpha": 4}',
}
_ZIPS = [
    _file("a second pickle of the same name", "a.pth", _two_pickles, **_ANY),
    _file("code in members that others read", "a.pth", _other_version, **_ANY),
    _file("members that are one, 8 GB unpacked", "a.pth", _overlapped, **_ANY),
    _file("a member at 2^32", "a.pth", _patched(42, b"\xff\xff\xff\xff"), **_ANY),
    _file("a member of 2^32 bytes", "a.pth", _patched(20, b"\xff" * 8), **_ANY),
    _file("a member that is encrypted", "a.pth", _patched(8, b"\x01\x00"), **_ANY),
    _file("a member of an unknown method", "a.pth", _patched(10, b"\x63\x00"), **_ANY),
    _file("a comment of 64 KB", "a.pth", _patched(20, b"\xff\xff", b"PK\x05\x06"), **_ANY),
    _file("65535 members, said", "a.pth", _patched(8, b"\xff\xff\xff\xff", b"PK\x05\x06"), **_ANY),
    _file(
        "16 MB of marks in 16 KB",
        "a.pth",
        lambda _: _zip([("a/data.pkl", b"\x80\x02" + b"(" * (16 << 20))], zipfile.ZIP_DEFLATED),
        says="compressed",
        seconds=2,
    ),
    _file(
        "16 MB of marks in a zip",
        "a.pth",
        lambda _: _zip([("a/data.pkl", b"\x80\x02" + b"(" * (16 << 20))]),
        says="GLESAM_MAX_PICKLE_MIB",
        seconds=2,
    ),
    _file(
        "16 MB of marks of the old format",
        "a.pth",
        lambda _: b"\x80\x02" + b"(" * (16 << 20),
        says="GLESAM_MAX_PICKLE_MIB",
        seconds=12,
        mebibytes=700,
    ),
    _file(
        "sound tensors, compressed",
        "a.pth",
        lambda _: _zip(list(_archive().items()), zipfile.ZIP_DEFLATED),
        says="compressed",
    ),
    _file("a zip in a zip", "a.pth", lambda p: _zip([("a/data.pkl", _overlapped(p))])),
    _file(
        "a zip behind 1 MB of noise",
        "a.pth",
        lambda p: p.random.randbytes(1 << 20) + _zip(list(_archive().items())),
        **_ANY,
    ),
    _file(
        "a zip and 1 MB of noise",
        "a.pth",
        lambda p: _zip(list(_archive().items())) + p.random.randbytes(1 << 20),
        **_ANY,
    ),
    _file(
        "a name of control characters",
        "a.pth",
        _altered(lambda m: m.update({"a\x1b[2J/data.pkl": b"\x80\x02}."})),
        **_ANY,
    ),
    _file("a pickle in gzip", "a.pth", lambda _: gzip.compress(pickle.dumps({}, 2))),
    _file(
        "no storage",
        "a.pth",
        _altered(lambda m: [m.pop(name) for name in list(m) if "/data/" in name]),
        **_ANY,
    ),
    _file("a storage of 2^40 bytes", "a.pth", _altered(_bombed), **_ANY),
    _file(
        "a storage of another folder",
        "a.pth",
        _replaced(b"X\x01\x00\x00\x000", b"X\x0c\x00\x00\x00../../secret"),
        **_ANY,
    ),
    _file(
        "a byte order of nothing",
        "a.pth",
        _altered(lambda m: m.update({f"{next(iter(m)).split('/')[0]}/byteorder": b"\x1b[2J"})),
        **_ANY,
    ),
    _file(
        "sizes of a tensor beyond its storage",
        "a.pth",
        _replaced(b"K\x02K\x03\x86", b"M\xff\xffM\xff\xff\x86"),
        **_ANY,
    ),
    _file(
        "sizes below 0",
        "a.pth",
        _replaced(b"K\x02K\x03\x86", b"J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"),
        **_ANY,
    ),
]
_SAVED = [
    _file("code as a key", "a.pth", _within(lambda evil: {"a": [{(1,): evil}]})),
    _file("code in a tuple of a set", "a.pth", _within(lambda evil: ({"x"}, [evil]))),
    _file(
        "code of the old format",
        "a.pth",
        _within(lambda evil: {"a": evil}, _use_new_zipfile_serialization=False),
    ),
    _file("code of protocol 5", "a.pth", _within(lambda evil: {"a": evil}, pickle_protocol=5)),
    _file("a whole module", "a.pth", _saved(lambda: torch.nn.Linear(2, 2)), **_ANY),
    _file("a tensor alone", "a.pth", _saved(lambda: torch.zeros(3)), **_ANY),
    _file(
        "a list of 10^5 tensors of nothing",
        "a.pth",
        _saved(lambda: [torch.zeros(0)] * 100_000),
        seconds=10,
        **_ANY,
    ),
    _file("a sparse tensor", "a.pth", _saved(lambda: {"x": torch.eye(3).to_sparse()}), **_ANY),
    _file(
        "a tensor of 2^60 numbers in one",
        "a.pth",
        _saved(lambda: {"image_encoder.x": torch.zeros(1).expand(1 << 30, 1 << 30)}),
        **_ANY,
    ),
    _file(
        "a complex tensor",
        "a.pth",
        _saved(lambda: {"x": torch.zeros(2, dtype=torch.cfloat)}),
        **_ANY,
    ),
    _file("a meta tensor", "a.pth", _saved(lambda: {"x": torch.zeros(2, device="meta")}), **_ANY),
    _file(
        "dicts 5000 deep",
        "a.pth",
        lambda _: b"\x80\x02" + b"}X\x01\0\0\0a" * 5000 + b"}" + b"s" * 5000 + b".",
        **_ANY,
    ),
    _file("a dict of itself", "a.pth", lambda _: b"\x80\x02}q\0X\x01\0\0\0ah\0s.", **_ANY),
    _file(
        "keys of numbers and None",
        "a.pth",
        _saved({1: torch.zeros(1), None: torch.zeros(1), b"x": 5}),
        **_ANY,
    ),
    _file(
        "names of control characters",
        "a.pth",
        _saved({"\x1b[2J\u202e": torch.zeros(1), "state_dict": {"\x07": torch.zeros(1)}}),
        **_ANY,
    ),
    _file(
        "a pickle of 4 MB of marks",
        "a.pth",
        lambda _: b"\x80\x02" + b"(" * (4 << 20),
        seconds=12,
        mebibytes=700,
        **_ANY,
    ),
    _file("a memo at 2^32", "a.pth", lambda _: b"\x80\x02]r\xff\xff\xff\xff.", **_ANY),
    _file("extension codes", "a.pth", lambda _: b"\x80\x02\x82\x01\x83\x01\x01.", **_ANY),
    _file(
        "a frame of 2^60 bytes",
        "a.pth",
        lambda _: b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"}.",
        **_ANY,
    ),
    _file(
        "a bytearray of 2^60 bytes",
        "a.pth",
        lambda _: b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"x.",
        **_ANY,
    ),
    _file("a persistent id of text", "a.pth", lambda _: b"P../../secret\n.", **_ANY),
    _file(
        "a text of 64 MB as a number", "a.pth", lambda _: b"I" + b"9" * (2 << 20) + b"\n.", **_ANY
    ),
]
_SAFETENSORS = [
    _file(
        "safetensors that overlap by half",
        "a.safetensors",
        lambda _: _tensors({"a": _entry(0, 40), "b": _entry(24, 64)}),
        **_ANY,
    ),
    _file(
        "safetensors with a hole",
        "a.safetensors",
        lambda _: _tensors({"a": _entry(0, 8), "b": _entry(56, 64)}),
        **_ANY,
    ),
    _file(
        "10^5 safetensors of nothing",
        "a.safetensors",
        lambda _: _tensors({f"t{n}": _entry(0, 0) for n in range(100_000)}, b""),
        seconds=10,
        **_ANY,
    ),
    _file(
        "a header of 60 MB of spaces",
        "a.safetensors",
        lambda _: _tensors(b"{" + b" " * (60 << 20) + b"}", b""),
        **_ANY,
    ),
    _file(
        "metadata of 20 MB",
        "a.safetensors",
        lambda _: _tensors({"__metadata__": {"a": "x" * (20 << 20)}, "a": _entry(0, 64)}),
        **_ANY,
    ),
    _file(
        "metadata of 10^5 names",
        "a.safetensors",
        lambda _: _tensors(
            {"__metadata__": {f"k{n}": "\x1b" for n in range(100_000)}, "a": _entry(0, 64)}
        ),
        **_ANY,
    ),
    _file(
        "metadata of a LoRA that is no JSON",
        "a.safetensors",
        lambda _: _with_metadata(_LORA, {"lora_adapter_metadata": "{" * 9000}),
        **_ANY,
    ),
    _file(
        "metadata of a LoRA that is deep",
        "a.safetensors",
        lambda _: _with_metadata(_LORA, {"lora_adapter_metadata": "[" * 90_000 + "]" * 90_000}),
        **_ANY,
    ),
    _file(
        "metadata of a LoRA of NaN",
        "a.safetensors",
        lambda _: _with_metadata(
            _LORA, {"lora_adapter_metadata": '{"unet.r": NaN, "unet.lora_alpha": Infinity}'}
        ),
        **_ANY,
    ),
    _file(
        "metadata of a LoRA of escapes",
        "a.safetensors",
        lambda _: _with_metadata(
            _LORA,
            {
                "lora_adapter_metadata": '{"unet.r": "\\u001b[2J", "unet.alpha_pattern": 7}',
                "ss_network_alpha": "\x1b[2J",
            },
        ),
        **_ANY,
    ),
    _file(
        "a name of NUL", "a.safetensors", lambda _: _tensors({"a\0b/../..": _entry(0, 64)}), **_ANY
    ),
    _file(
        "a name twice",
        "a.safetensors",
        lambda _: _tensors(b'{"a": %s, "a": %s}' % ((json.dumps(_entry(0, 64)).encode(),) * 2)),
        **_ANY,
    ),
    _file(
        "shapes of 0 and 2^63",
        "a.safetensors",
        lambda _: _tensors({"a": _entry(0, 0, [0, 1 << 63])}, b""),
        **_ANY,
    ),
    _file(
        "shapes of 10^5 axes",
        "a.safetensors",
        lambda _: _tensors({"a": _entry(0, 4, [1] * 100_000)}, bytes(4)),
        **_ANY,
    ),
    _file(
        "a type of 4 bits",
        "a.safetensors",
        lambda _: _tensors({"a": _entry(0, 64, [128], "F4")}),
        **_ANY,
    ),
    _file(
        "a type of null",
        "a.safetensors",
        lambda _: _tensors({"a": _entry(0, 64, [16], None)}),
        **_ANY,
    ),
    _file(
        "a pickle with the name of safetensors",
        "a.safetensors",
        lambda place: pickle.dumps(_touch(place), 2),
    ),
    _file("safetensors with the name of a pickle", "a.pth", lambda _: _LORA, **_ANY),
]


_NAMES = ("config.json", "model.safetensors", "checkpoint.json")
_INDEX = "unet/diffusion_pytorch_model.safetensors.index.json"
_PLACES = [
    *(
        _folder(
            f"an adapter of {name}",
            {"adapter_config.json": text, "adapter_model.safetensors": _PEFT},
        )
        for name, text in _ADAPTERS.items()
    ),
    _folder(
        "an adapter that is a pickle",
        {
            "adapter_config.json": '{"r": 4, "lora_alpha": 4}',
            "adapter_model.bin": pickle.dumps(_Runs(os.system, "touch ../witness"), 2),
        },
    ),
    _folder(
        "a scheduler of escapes",
        {"scheduler/scheduler_config.json": '{"_class_name": "\\u001b[2J", "beta_start": 1e400}'},
    ),
    _folder(
        "a scheduler of 10^9 steps",
        {
            "scheduler_config.json": json.dumps(
                {
                    "_class_name": "DDPMScheduler",
                    "num_train_timesteps": 1_000_000_000,
                    "beta_start": 0.1,
                    "beta_end": 0.2,
                    "beta_schedule": "linear",
                }
            )
        },
    ),
    _folder(
        "a U-Net of shards in a circle",
        {
            "unet/config.json": "{}",
            _INDEX: json.dumps({"weight_map": {"a": Path(_INDEX).name}}),
        },
    ),
    _folder(
        "a U-Net of shards of 10^5 names",
        {
            "unet/config.json": "{}",
            _INDEX: json.dumps(
                {"weight_map": {f"t{n}": f"s{n}.safetensors" for n in range(100_000)}}
            ),
        },
    ),
    _folder(
        "a folder of FIFOs",
        dict.fromkeys(
            ("config.json", "model.safetensors", "checkpoint.json", "adapter_config.json"),
            os.mkfifo,
        ),
    ),
    _folder(
        "a folder of folders named as files",
        dict.fromkeys(
            ("config.json", "model.safetensors", "checkpoint.json", "manifest.json"), Path.mkdir
        ),
    ),
    _folder(
        "a checkpoint of a folder that leads outside",
        {"checkpoint.json": '{"version": 1, "sam": {"file": "../../secret"}}'},
    ),
    _folder("files of 1000 names", {f"{n}.pth": b"x" for n in range(1000)}),
    _linked("a link to a process's memory", "/proc/self/mem"),
    _linked("a link to the kernel's log", "/proc/kmsg"),
    _linked("a link to standard input", "/proc/self/fd/0"),
    _linked("a link to its folder", "."),
    _linked("a folder with a link to itself", ".", folder=True),
    _made("the root", lambda _: ["/"], says="", **_ANY),
    _made("/proc", lambda _: ["/proc"], says="", **_ANY),
    _made("a name of nothing", lambda _: [""], says="", **_ANY),
    _made(
        "a name of NUL and escapes",
        lambda place: [place.write("\x1b[2J\n\u202e.pth", b"x")],
        says="",
    ),
    _made(
        "a file 300 times",
        lambda place: [place.write("a.pth", b"x")] * 300,
        says="",
        lines=1,
        **_ANY,
    ),
]
CASES = [*_ZIPS, *_SAVED, *_SAFETENSORS, *_PLACES]
