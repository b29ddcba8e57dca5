"""Compares state dicts with modules, checks their values, and loads them without a copy."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def assign(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Assign weights in float32 to a module on the meta device, without a second copy of them."""
    module.load_state_dict(
        {name: tensor.float() for name, tensor in tensors.items()}, strict=True, assign=True
    )
    module.eval().requires_grad_(False)


def misfits(module: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """List the differences between `tensors` and the module's state dict, one line each."""
    return shape_misfits(module.state_dict(), tensors)


def shape_misfits(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """List differences between the names and shapes of `tensors` and `expected`, one line each."""
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
    """List tensors that cannot be weights: not plain real numbers, or not all finite."""
    problems = []
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex():
            problems.append(f"{name} is not a plain tensor of real numbers")
        elif not bool(tensor.isfinite().all()):
            problems.append(f"{name} holds NaN or infinity")
    return problems


def first_three(problems: list[str]) -> str:
    """Return the first three problems and the number of the others as text."""
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more
