"""Convert between torch tensors and numpy arrays, without importing torch.

Whoever passes a tensor has imported torch already, so the module is taken from there.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

Tensor: TypeAlias = Any
"""A torch.Tensor. Type checkers cannot know it, because the runtime does not depend on torch."""


def torch_module(value: object, name: str = "value") -> ModuleType:
    """Return the torch module that made a tensor.

    Raises:
        InputError: the value is not a torch tensor.
    """
    module = sys.modules.get("torch")
    if module is None or not isinstance(value, module.Tensor):
        raise InputError(f"{name}: must be a torch tensor, not {type(value).__name__}")
    return module


def first_tensor(*values: object) -> Tensor:
    """Return the first torch tensor among the values.

    Raises:
        InputError: there is none.
    """
    module = sys.modules.get("torch")
    for value in values:
        if module is not None and isinstance(value, module.Tensor):
            return value
    raise InputError(
        "no prompt is a torch tensor; give points, a box or a mask as tensors, or call predict, "
        "which takes arrays"
    )


def to_numpy(value: object) -> NDArray[Any] | None:
    """Return the values of a tensor on any device as an array; arrays and None stay as they are.

    Floating-point values become float64, which holds every float, half and bfloat16 exactly.
    """
    if value is None:
        return None
    module = sys.modules.get("torch")
    if module is None or not isinstance(value, module.Tensor):
        return np.asarray(value)
    host = value.detach().cpu()
    array: NDArray[Any] = (host.double() if host.is_floating_point() else host).numpy()
    return array


def like(array: NDArray[Any], tensor: Tensor) -> Tensor:
    """Return an array as a tensor on the device of another tensor."""
    return torch_module(tensor).from_numpy(array).to(tensor.device)
