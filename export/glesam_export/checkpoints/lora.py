"""Reads LoRA files of the U-Net, in the key styles that training code has written."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glesam_export.checkpoints.tensors import first_three, unusable
from glesam_export.reference import LoraFactors
from glesam_runtime.errors import CheckpointError

KEY = re.compile(
    r"^(?:base_model\.model\.)?(?:unet\.)?(?P<module>.+?)\."
    r"(?:(?P<down>lora\.down|lora_A(?:\.\w+)?)|(?P<up>lora\.up|lora_B(?:\.\w+)?))\.weight$"
)
"""`unet.<module>.lora.down.weight` (older diffusers) or `.lora_A.weight` (newer, peft)."""

ALPHA_KEY = re.compile(r"^(?:base_model\.model\.)?(?:unet\.)?(?P<module>.+)\.alpha$")


def parse(state: Mapping[str, Tensor], unet: nn.Module, where: str) -> dict[str, LoraFactors]:
    """Sort a LoRA file into the factors of each layer it adapts.

    A layer without an `.alpha` has alpha equal to its rank, as the paper's rank 8, alpha 8.

    Args:
        state: the file's tensors.
        unet: the widened U-Net the factors must fit; may be on the meta device.
        where: the file, for messages.

    Returns:
        A, B and alpha by module path.

    Raises:
        CheckpointError: keys or shapes that do not fit, naming the first three.
    """
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    problems = unusable(state)
    for key, tensor in state.items():
        if match := KEY.match(key):
            factors = downs if match["down"] else ups
            if match["module"] in factors:
                problems.append(f"{key} is there twice, in two styles")
            factors[match["module"]] = tensor.float()
        elif (match := ALPHA_KEY.match(key)) and tensor.numel() == 1:
            alphas[match["module"]] = float(tensor)
        else:
            problems.append(f"{key} is no LoRA key")
    layers = {
        name: layer
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    problems += [
        problem
        for name in downs.keys() | ups.keys() | alphas.keys()
        if (problem := _misfit(name, downs.get(name), ups.get(name), layers.get(name)))
    ]
    if problems:
        raise CheckpointError(f"{where}: does not fit the U-Net: {first_three(sorted(problems))}")
    if not downs:
        raise CheckpointError(f"{where}: holds no adapters")
    return {
        name: (downs[name], ups[name], alphas.get(name, float(downs[name].shape[0])))
        for name in sorted(downs)
    }


def _misfit(
    name: str, down: Tensor | None, up: Tensor | None, layer: nn.Linear | nn.Conv2d | None
) -> str | None:
    """Why one layer's factors cannot be used; None if they can."""
    if layer is None:
        return f"{name} is not a layer of this U-Net"
    if down is None or up is None:
        return f"{name} lacks one of its two factors"
    rank = down.shape[0] if down.ndim else 0
    if rank == 0:
        return f"{name} has A {list(down.shape)}, of rank 0"
    weight = layer.weight.shape
    wanted_down = torch.Size([rank, *weight[1:]])
    wanted_up = torch.Size([weight[0], rank, *([1] * (len(weight) - 2))])
    if down.shape != wanted_down:
        return f"{name} has A {list(down.shape)}, not {list(wanted_down)}"
    if up.shape != wanted_up:
        return f"{name} has B {list(up.shape)}, not {list(wanted_up)}"
    return None
