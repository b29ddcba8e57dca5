"""Opens and parses a file of tensors once, without running code in it, and maps it on each read."""

from __future__ import annotations

import json
import mmap
import os
import pickle
import re
import struct
import warnings
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from glesam_export.checkpoints.pickle_limits import limited
from glesam_runtime.errors import CheckpointError, GlesamError

WRAPPERS = ("model", "state_dict")
"""Keys that decide which state dict is meant if a file nests several, in this order."""

Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
"""Turns a state dict into another one."""

DEEPEST = 4
"""Number of levels that are searched for a nested state dict."""

UNREADABLE = (
    *(SafetensorError, RuntimeError, EOFError, ValueError, OSError, zipfile.BadZipFile),
    *(struct.error, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError),
)
"""Exceptions that a damaged file causes: torch does not check the structure of a pickle."""

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
}
"""Types as a .safetensors header spells them."""


@dataclass(frozen=True)
class _Place:
    """The place of a tensor in its file.

    Attributes:
        like: a tensor of the same type, shape and strides, on the meta device.
        offset: position of the first element, in bytes from the start of the file.
    """

    like: Tensor
    offset: int

    @property
    def span(self) -> int:
        """Return the number of elements from the first to the last in the file."""
        steps = zip(self.like.shape, self.like.stride(), strict=True)
        return 1 + sum((size - 1) * stride for size, stride in steps) if self.like.numel() else 0

    def tensor(self, mapped: mmap.mmap) -> Tensor:
        """Return the tensor as a view into a mapped file."""
        if not self.span:
            return torch.empty_like(self.like, device="cpu")
        flat = torch.frombuffer(mapped, dtype=self.like.dtype, count=self.span, offset=self.offset)
        return flat.as_strided(self.like.shape, self.like.stride())


class TensorFile:
    """A .safetensors file or a pickled state dict of tensors, opened and parsed once.

    Names, shapes and places in the file stay in memory. Each `read` maps the file anew, so
    a caller may change the tensors in place, and deleting them frees their memory.

    Pickles are read with `weights_only=True`. A state dict that is nested, under any key,
    is unwrapped, and the prefix `module.` of data-parallel training is dropped. Pickles of PyTorch
    before 1.6 cannot be mapped; `read` loads them again.

    Args:
        path: the file.
        option: the option that names the file, for messages.

    Attributes:
        path: the file.
        where: option and path, for messages.
        files: the files that hold the tensors.
        metadata: metadata of a .safetensors file; otherwise empty.
        note: whose names the tensors had before `convert`; empty if nobody's.
        shapes: every tensor on the meta device, by name.

    Raises:
        CheckpointError: the file is missing, truncated, without tensors, or would run code.
    """

    note: str = ""

    def __init__(self, path: Path, option: str = "") -> None:
        self.path, self.where = path, f"{option} {path}".strip()
        self.files = [path]
        self.metadata: Mapping[str, str] = {}
        self._change: Change = lambda tensors: tensors
        if not path.is_file():
            raise CheckpointError(f"{self.where}: no such file")
        with self._located_errors():
            # It stays open, so that every read is of the same file even if the path is replaced.
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, self._descriptor)
            self._places = self._index()

    def read(self, prefix: str = "") -> dict[str, Tensor]:
        """Read the tensors whose names begin with `prefix`, and remove it from the names."""
        with self._located_errors():
            found = self._change(self._stored())
        return {n.removeprefix(prefix): t for n, t in found.items() if n.startswith(prefix)}

    def _stored(self) -> dict[str, Tensor]:
        """Return all tensors as they lie in the file."""
        if self._places is None:
            return self._loaded("cpu")
        # Pages are read when they are used, and copied when they are changed.
        mapped = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_COPY)
        return {name: place.tensor(mapped) for name, place in self._places.items()}

    def _index(self) -> dict[str, _Place] | None:
        """Parse the file: set `shapes`, and return the places if every tensor has one."""
        if self.path.suffix == ".safetensors":
            places = self._safetensors_places()
            self.shapes = {name: place.like for name, place in places.items()}
            if not places:
                raise CheckpointError(f"{self.where}: holds no tensors; fetch or save it again")
            return places
        try:
            self.shapes = self._loaded("meta")
        except NotImplementedError:  # torch cannot put sparse tensors on the meta device
            loaded = self._loaded("cpu")
            self.shapes = {n: torch.empty(t.shape, device="meta") for n, t in loaded.items()}
            return None
        places = {}
        for name, tensor in self.shapes.items():
            start = None
            if tensor.layout == torch.strided:
                # torch.load sets this on storages of the meta device, except for old pickles.
                start = getattr(tensor.untyped_storage(), "_checkpoint_offset", None)
            if start is None:
                return None
            offset = start + tensor.storage_offset() * tensor.element_size()
            places[name] = _Place(tensor.detach(), offset)
        return self._inside(places)

    def _safetensors_places(self) -> dict[str, _Place]:
        """Parse the header of a .safetensors file."""
        with safe_open(self.path, framework="pt") as file:  # checks that the header is sound
            self.metadata = file.metadata() or {}
        with os.fdopen(os.dup(self._descriptor), "rb") as raw:
            raw.seek(0)
            size = int.from_bytes(raw.read(8), "little")
            header = json.loads(raw.read(size))
        return self._inside(
            {
                name: _Place(
                    torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]], device="meta"),
                    8 + size + entry["data_offsets"][0],
                )
                for name, entry in header.items()
                if name != "__metadata__"
            }
        )

    def _inside(self, places: dict[str, _Place]) -> dict[str, _Place]:
        """Check that all places lie inside the file, and return them."""
        size = os.fstat(self._descriptor).st_size
        for name, place in places.items():
            if place.offset + place.span * place.like.element_size() > size:
                raise ValueError(f"{name} extends beyond the end of the file")
        return places

    def _loaded(self, device: str) -> dict[str, Tensor]:
        """Unpickle the file and return its tensors by their names in a plain state dict."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols and TorchScript
            with limited(self.path, self.where) as source:
                loaded: Any = torch.load(
                    source,
                    map_location=device,
                    weights_only=True,
                    mmap=isinstance(source, Path),
                )
        if not isinstance(loaded, dict) or not loaded:
            found = "an empty one" if isinstance(loaded, dict) else f"a {type(loaded).__name__}"
            raise CheckpointError(
                f"{self.where}: holds no state dict but {found}; save the model's state_dict()"
            )
        tensors = {
            str(key).removeprefix("module."): value
            for key, value in self._state_dict(loaded).items()
            if torch.is_tensor(value)
        }
        if not tensors:
            keys = ", ".join([str(key) for key in loaded][:3])
            raise CheckpointError(
                f"{self.where}: holds no tensors by name, only {keys}; "
                "save the model's state_dict()"
            )
        return tensors

    def _state_dict(self, loaded: dict[Any, Any]) -> dict[Any, Any]:
        """Return the state dict of a file: the whole content, or the one that is nested in it.

        A training state holds other tensors too: of the optimizer by numbers, of random generators
        and losses by plain names. The names of a state dict have dots.
        """
        found = dict(_state_dicts(loaded, ()))
        dotted = {
            path: state
            for path, state in found.items()
            if any("." in name for name, value in state.items() if torch.is_tensor(value))
        }
        nested = dotted or found
        if () in nested:
            return loaded
        for wrapper in WRAPPERS:
            # A wrapped state dict in another wrapper, as in model.state_dict, is the same one.
            named = [state for path, state in nested.items() if path[0] == wrapper]
            if len(named) == 1:
                return named[0]
        if len(nested) > 1:
            names = ", ".join(".".join(path) for path in nested)
            raise CheckpointError(
                f"{self.where}: holds several state dicts ({names}); save the one you mean alone"
            )
        return next(iter(nested.values()), {})

    def rename(self, rename: Callable[[str], str]) -> None:
        """Give the tensors other names, in `shapes` and for every later `read`."""
        if len({rename(name) for name in self.shapes}) < len(self.shapes):
            raise CheckpointError(f"{self.where}: two tensors have the same name without prefixes")
        self.convert(lambda tensors: {rename(name): t for name, t in tensors.items()})

    def convert(self, change: Change) -> None:
        """Change the state dict, in `shapes` and for every later `read`.

        Args:
            change: takes a state dict and returns another one. It also gets tensors on the meta
                device.
        """
        before = self._change
        self.shapes = change(self.shapes)
        self._change = lambda tensors: change(before(tensors))

    @contextmanager
    def _located_errors(self) -> Iterator[None]:
        """Turn exceptions that a damaged or unsafe file causes into errors that name the file."""
        try:
            yield
        except CheckpointError:
            raise
        except pickle.UnpicklingError as error:
            words = self._of_another_kind() or _refusal(error)
            raise CheckpointError(f"{self.where}: {words}") from error
        except UNREADABLE as error:
            kind = "not a .safetensors file" if self.path.suffix == ".safetensors" else "unreadable"
            words = f"{kind} or truncated ({first_line(error)}); fetch the file again"
            raise CheckpointError(f"{self.where}: {self._of_another_kind() or words}") from error

    def _of_another_kind(self) -> str | None:
        """Say that a file does not begin as files of its kind do; None if it does."""
        if self.path.suffix == ".safetensors":
            return None
        try:
            with self.path.open("rb") as file:
                start = file.read(24)
        except OSError:
            return None
        if not start:
            return "an empty file; fetch it again"
        if start.startswith((b"PK", b"\x80")):  # a zip archive or a pickle
            return None
        return f"not a file that PyTorch wrote, it begins with {start!r}; fetch the file again"


def _state_dicts(
    value: dict[Any, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[Any, Any]]]:
    """Yield every nested dict that holds tensors by name, with the keys that lead to it."""
    if any(torch.is_tensor(entry) and isinstance(key, str) for key, entry in value.items()):
        yield path, value
    if len(path) < DEEPEST:
        for key, entry in value.items():
            if isinstance(key, str) and isinstance(entry, dict):
                yield from _state_dicts(entry, (*path, key))


@contextmanager
def within(where: str) -> Iterator[None]:
    """Prefix the errors raised in the block with the file that caused them.

    If such an error names an option, the file has an entry of that name, so the dashes are removed.
    """
    try:
        yield
    except GlesamError as error:
        raise CheckpointError(f"{where}: {str(error).removeprefix('--')}") from error


def first_line(error: Exception) -> str:
    """Return an exception's first line, at most 120 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _refusal(error: pickle.UnpicklingError) -> str:
    """Return why a pickle was refused. Torch's own message advises the user to run it anyway."""
    if wanted := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"asks to run {wanted[1]} when it is unpickled, so it is refused; "
            "save its state dict alone, as .safetensors"
        )
    return (
        "not a file of plain tensors, so it is refused; "
        "fetch the file again or save its state dict as .safetensors"
    )
