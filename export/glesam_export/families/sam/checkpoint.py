"""Reads and writes SAM's weights by the keys of Meta's .pth files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from glesam_export.checkpoints import state_dicts
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_export.families.sam.presets import SamPreset
from glesam_export.families.sam.reference import (
    Decoder,
    build_encoder,
    build_mask_decoder,
    build_prompt_encoder,
)

PARTS: Mapping[str, Callable[[SamPreset], nn.Module]] = {
    "image_encoder": build_encoder,
    "prompt_encoder": build_prompt_encoder,
    "mask_decoder": build_mask_decoder,
}
"""SAM's parts, by the prefix of their keys in Meta's files."""


def misfits(state: Mapping[str, Tensor], preset: SamPreset) -> list[str]:
    """List the differences between a state dict and this preset's SAM, with full names."""
    return [
        f"{prefix}.{problem}"
        for prefix, build in PARTS.items()
        for problem in state_dicts.misfits(_on_meta(build, preset), _part(state, prefix))
    ]


def encoder(state: Mapping[str, Tensor], preset: SamPreset) -> nn.Module:
    """Build the image encoder with these weights."""
    built = _on_meta(build_encoder, preset)
    state_dicts.assign(built, _part(state, "image_encoder"))
    return built


def decoder(state: Mapping[str, Tensor], preset: SamPreset) -> Decoder:
    """Build prompt encoder and mask decoder with these weights."""
    prompt_encoder = build_prompt_encoder(preset)
    mask_decoder = build_mask_decoder(preset)
    state_dicts.assign(prompt_encoder, _part(state, "prompt_encoder"))
    state_dicts.assign(mask_decoder, _part(state, "mask_decoder"))
    return Decoder(prompt_encoder, mask_decoder).eval().requires_grad_(False)


def state_dict(encoder: nn.Module, decoder: ReferenceDecoder) -> dict[str, Tensor]:
    """Return the weights of a whole SAM with Meta's keys, in Meta's order."""
    parts = {
        "image_encoder": encoder,
        "prompt_encoder": decoder.prompt_encoder,
        "mask_decoder": decoder.mask_decoder,
    }
    return {
        f"{prefix}.{name}": tensor
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the entries under `prefix.`, without the prefix."""
    return {
        name.removeprefix(prefix + "."): tensor
        for name, tensor in state.items()
        if name.startswith(prefix + ".")
    }


def _on_meta(build: Callable[[SamPreset], nn.Module], preset: SamPreset) -> nn.Module:
    """Build a module on the meta device: with shapes, but without memory."""
    with torch.device("meta"):
        return build(preset)
