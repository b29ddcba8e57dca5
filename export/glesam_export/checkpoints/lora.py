"""Reads the U-Net's LoRA, in the key styles that training code writes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glesam_export.checkpoints import Contents, Finding, Format
from glesam_export.checkpoints.stable_diffusion import on_meta
from glesam_export.checkpoints.state_dicts import first_three, unusable
from glesam_export.enhancer.reference import LoraFactors
from glesam_export.presets import UNET_PRESETS
from glesam_runtime.errors import CheckpointError

KEY = re.compile(
    r"^(?:base_model\.model\.)?(?:unet\.)?(?P<module>.+?)\."
    r"(?:(?P<down>lora\.down|lora_A(?:\.\w+)?)|(?P<up>lora\.up|lora_B(?:\.\w+)?))\.weight$"
)
"""`unet.<module>.lora.down.weight` (older diffusers) or `.lora_A.weight` (newer, peft)."""

ALPHA_KEY = re.compile(r"^(?:base_model\.model\.)?(?:unet\.)?(?P<module>.+)\.alpha$")


def parse(state: Mapping[str, Tensor], unet: nn.Module, where: str) -> dict[str, LoraFactors]:
    """Sort the tensors of a LoRA file into the factors of each adapted layer.

    A layer without an `.alpha` has alpha equal to its rank, like the paper's rank 8 and alpha 8.

    Args:
        state: the file's tensors.
        unet: the widened U-Net that the factors must fit; may be on the meta device.
        where: the file, for messages.

    Returns:
        A, B and alpha by module path. A and B are copies.

    Raises:
        CheckpointError: names the first three keys or shapes that do not fit.
    """
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    problems = unusable(state)
    for key, tensor in state.items():
        if match := KEY.match(key):
            factors = downs if match["down"] else ups
            if match["module"] in factors:
                problems.append(f"{key} occurs twice, in two key styles")
            factors[match["module"]] = tensor.to(torch.float32, copy=True)
        elif (match := ALPHA_KEY.match(key)) and tensor.numel() == 1:
            alphas[match["module"]] = float(tensor)
        else:
            problems.append(f"{key} is not a LoRA key")
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
    """Return why one layer's factors cannot be used, or None if they can."""
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


def _matches(contents: Contents) -> bool:
    """Return whether a file has a LoRA key."""
    return contents.tensors is not None and any(KEY.match(n) for n in contents.tensors.shapes)


def _describe(contents: Contents) -> Finding:
    """Describe adapters: number of layers, ranks, and the U-Nets that they fit."""
    assert contents.tensors is not None, "a LoRA is a file of tensors"
    path, loaded = contents.path, contents.tensors.read()
    matches = [match for name in loaded if (match := KEY.match(name))]
    downs = {match["module"]: loaded[match.string] for match in matches if match["down"]}
    ranks = sorted({tensor.shape[0] for tensor in downs.values() if tensor.ndim})
    fits, reasons = [], []
    for preset in UNET_PRESETS.values():
        try:
            parse(loaded, on_meta(preset), "")
            fits.append(preset.name)
        except CheckpointError as error:
            reasons.append((str(error).count(";"), str(error).removeprefix(": ")))
    words = f"LoRA of {len(downs)} layers, rank {', '.join(map(str, ranks))}"
    if fits:
        return Finding(path, "lora", f"{words}, for U-Net {fits[0]}", tuple(fits))
    return Finding(path, "lora", f"{words}, for none of the U-Nets known here: {min(reasons)[1]}")


FORMAT = Format(_matches, _describe)
