"""Reads a file of tensors without running what is in it."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from glesam_runtime.errors import CheckpointError, GlesamError

WRAPPERS = ("model", "state_dict")
"""Keys under which training code nests a state dict."""

UNREADABLE = (
    *(SafetensorError, RuntimeError, EOFError, ValueError, OSError, zipfile.BadZipFile),
    *(struct.error, LookupError, TypeError, AttributeError, ArithmeticError, AssertionError),
)
"""What reading a damaged file raises: torch parses a pickle without doubting its structure."""


def read(path: Path, role: str) -> dict[str, Tensor]:
    """Read a .safetensors file or a pickled state dict of tensors.

    Pickles are read with `weights_only=True`; what they nest ("model", "state_dict") is unwrapped
    and a `module.` prefix, left by data-parallel training, is dropped.

    Args:
        path: the file.
        role: the option it was given by, for messages.

    Raises:
        CheckpointError: missing, truncated, not of tensors, or a pickle that would run code.
    """
    return _state_dict(path, role, "cpu")


def read_shapes(path: Path, role: str) -> dict[str, Tensor]:
    """What `read` gives, on the meta device: names and shapes of gigabytes in no memory.

    Raises:
        CheckpointError: as `read`.
    """
    return _state_dict(path, role, "meta")


def _state_dict(path: Path, role: str, device: Literal["cpu", "meta"]) -> dict[str, Tensor]:
    """The tensors of a file, by the names they have in a plain state dict."""
    if not path.is_file():
        raise CheckpointError(f"{role} {path}: no such file")
    try:
        loaded = _load(path, device)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{role} {path}: {_refusal(error)}") from error
    except UNREADABLE as error:
        raise CheckpointError(
            f"{role} {path}: unreadable or truncated ({first_line(error)}); fetch the file again"
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded:
        raise CheckpointError(f"{role} {path}: holds no state dict")
    tensors = {str(k).removeprefix("module."): v for k, v in loaded.items() if torch.is_tensor(v)}
    if not tensors:
        raise CheckpointError(f"{role} {path}: holds no tensors")
    return tensors


def _load(path: Path, device: Literal["cpu", "meta"]) -> Any:
    """Whatever a .safetensors file or a pickle holds."""
    if path.suffix != ".safetensors":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols and TorchScript
            return torch.load(
                path, map_location=device, weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    if device == "cpu":
        return load_file(path)
    with safe_open(path, framework="pt") as file:
        return {
            name: torch.empty(file.get_slice(name).get_shape(), device="meta")
            for name in file.keys()  # noqa: SIM118
        }


def read_under(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file whose names begin with `prefix`, without it.

    No other tensor is read.

    Raises:
        CheckpointError: missing, truncated, or another format.
    """
    with _opened(path) as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def read_header(path: Path) -> tuple[dict[str, str], list[str]]:
    """The metadata of a .safetensors file, {} where it has none, and the names of its tensors.

    Raises:
        CheckpointError: missing, truncated, or another format.
    """
    with _opened(path) as file:
        return file.metadata() or {}, list(file.keys())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A .safetensors file, of which nothing but the header is read yet."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path}: not a .safetensors file, or truncated ({first_line(error)}); "
            "fetch the file again"
        ) from error


@contextmanager
def within(where: str) -> Iterator[None]:
    """Let an error of what a file names begin with that file.

    The options that such an error names are entries there, hence without their dashes.
    """
    try:
        yield
    except GlesamError as error:
        raise CheckpointError(f"{where}: {str(error).removeprefix('--')}") from error


def assign(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a module on the meta device its weights, float32, without a second copy of them."""
    module.load_state_dict(
        {name: tensor.float() for name, tensor in tensors.items()}, strict=True, assign=True
    )
    module.eval().requires_grad_(False)


def misfits(module: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps `tensors` from being the module's state dict, in words, at most a line each."""
    return shape_misfits(module.state_dict(), tensors)


def shape_misfits(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """What keeps `tensors` from having the names and shapes of `expected`, at most a line each."""
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    missing = [f"{name} is missing" for name in wanted if name not in found]
    unknown = [f"{name} is unknown" for name in found if name not in wanted]
    shapes = [
        f"{name} is {list(found[name])}, not {list(shape)}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    return shapes + missing + unknown


def unusable(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors that no weight can be: not plain real numbers, or not all of them finite."""
    problems = []
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex():
            problems.append(f"{name} is not a plain tensor of real numbers")
        elif not bool(tensor.isfinite().all()):
            problems.append(f"{name} holds NaN or infinity")
    return problems


def first_three(problems: list[str]) -> str:
    """The first three problems and how many more there are."""
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _refusal(error: pickle.UnpicklingError) -> str:
    """Why a pickle was not read. Torch's own words advise to read it all the same."""
    if wanted := re.search(r"GLOBAL (\S+)", str(error)):
        return (
            f"asks to run {wanted[1]} when it is unpickled, so it is refused; "
            "save its state dict alone, as .safetensors"
        )
    return (
        "not a file of plain tensors, so it is refused; "
        "fetch the file again or save its state dict as .safetensors"
    )


def first_line(error: Exception) -> str:
    """An exception in one line of at most 120 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
