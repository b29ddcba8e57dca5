"""Fits a SAM or SAM 2 state dict to a preset, and names the preset that it does fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from glesam_export.checkpoints import tensors as files
from glesam_export.presets import PRESETS, Preset, Sam2Preset, SamPreset
from glesam_export.reference import (
    Decoder,
    build_encoder,
    build_mask_decoder,
    build_prompt_encoder,
)
from glesam_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from glesam_export.reference_sam2 import Sam2Decoder

PARTS: Mapping[str, Callable[[SamPreset], nn.Module]] = {
    "image_encoder": build_encoder,
    "prompt_encoder": build_prompt_encoder,
    "mask_decoder": build_mask_decoder,
}
"""SAM's parts, by the prefix of their keys in Meta's files."""


def check(state: Mapping[str, Tensor], preset: Preset, where: str) -> None:
    """Refuse a state dict that is not this preset's; `where` names its file.

    Raises:
        CheckpointError: naming the preset that fits, or the first three misfits or bad values.
    """
    problems = misfits(state, preset)
    if not problems:
        if broken := files.unusable(_used(state, preset)):
            raise CheckpointError(f"{where}: {files.first_three(broken)}")
        return
    fitting = [other.name for other in PRESETS.values() if not misfits(state, other)]
    if fitting:
        raise CheckpointError(
            f"{where}: not a {preset.name} but a {fitting[0]}; use preset {fitting[0]}"
        )
    raise CheckpointError(
        f"{where}: does not fit {preset.name} or any other preset: {files.first_three(problems)}"
    )


def encoder(state: Mapping[str, Tensor], preset: Preset) -> nn.Module:
    """The image encoder with these weights."""
    if isinstance(preset, Sam2Preset):
        from glesam_export.checkpoints import sam2

        return sam2.encoder(state, preset)
    built = _on_meta(build_encoder, preset)
    files.assign(built, _part(state, "image_encoder"))
    return built


def decoder(state: Mapping[str, Tensor], preset: Preset) -> Decoder | Sam2Decoder:
    """Prompt encoder and mask decoder with these weights."""
    if isinstance(preset, Sam2Preset):
        from glesam_export.checkpoints import sam2

        return sam2.decoder(state, preset)
    prompt_encoder = build_prompt_encoder(preset)
    mask_decoder = build_mask_decoder(preset)
    files.assign(prompt_encoder, _part(state, "prompt_encoder"))
    files.assign(mask_decoder, _part(state, "mask_decoder"))
    return Decoder(prompt_encoder, mask_decoder).eval().requires_grad_(False)


def misfits(state: Mapping[str, Tensor], preset: Preset) -> list[str]:
    """What keeps a state dict from being this preset's SAM: each misfit, keys spelled whole."""
    if isinstance(preset, Sam2Preset):
        from glesam_export.checkpoints import sam2

        return sam2.problems(state, preset)
    return [
        f"{prefix}.{problem}"
        for prefix, build in PARTS.items()
        for problem in files.misfits(_on_meta(build, preset), _part(state, prefix))
    ]


def _used(state: Mapping[str, Tensor], preset: Preset) -> Mapping[str, Tensor]:
    """What of a state dict is judged by its values."""
    if isinstance(preset, Sam2Preset):
        from glesam_export.checkpoints import sam2

        return sam2.used(state)
    return state


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries under `prefix.`, without it."""
    return {
        name.removeprefix(prefix + "."): tensor
        for name, tensor in state.items()
        if name.startswith(prefix + ".")
    }


def _on_meta(build: Callable[[SamPreset], nn.Module], preset: SamPreset) -> nn.Module:
    """A module that has shapes and no memory."""
    with torch.device("meta"):
        return build(preset)
