"""Fits a SAM 2 state dict, as Meta's .pt files nest it under "model", to a preset."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glesam_export.checkpoints import tensors as files
from glesam_export.presets import Sam2Preset
from glesam_export.reference_sam2 import (
    Sam2Decoder,
    Sam2Encoder,
    build_sam2_decoder,
    build_sam2_encoder,
)

VIDEO = (
    "memory_attention.",
    "memory_encoder.",
    "mask_downsample.",
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_embed_spatial",
    "no_obj_ptr",
    "obj_ptr_proj.",
    "obj_ptr_tpos_proj.",
)
"""Beginnings of the keys that only video needs: memory of earlier frames, object pointers."""

RELEASE_2_1 = "no_obj_embed_spatial"
"""A key that release 2.1 has and release 2 has not; nothing else in a file tells them apart."""

MEMORY = "memory_attention."
"""Keys that every file has from which nothing was taken out."""

PREFIXES: Mapping[str, str] = {
    "sam_prompt_encoder.": "prompt_encoder.",
    "sam_mask_decoder.": "mask_decoder.",
}
"""How Meta's files name the decoder's parts, and `Sam2Decoder` does."""

PROJECTIONS = ("conv_s0.", "conv_s1.")
"""Layers that lie with the mask decoder in the files and are run by the encoder."""


def used(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without what only video needs."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(VIDEO)}


def problems(state: Mapping[str, Tensor], preset: Sam2Preset) -> list[str]:
    """What keeps a state dict from being this preset's SAM 2, keys spelled whole."""
    found = files.shape_misfits(state_of(*_on_meta(preset)), used(state))
    if preset.release == "2" and RELEASE_2_1 in state:
        found.append(f"{RELEASE_2_1} is there, as in release 2.1 alone")
    whole = any(name.startswith(MEMORY) for name in state)
    if preset.release == "2.1" and whole and RELEASE_2_1 not in state:
        found.append(f"{RELEASE_2_1} is missing, as in release 2")
    return found


def encoder(state: Mapping[str, Tensor], preset: Sam2Preset) -> Sam2Encoder:
    """The image encoder with these weights."""
    built, _ = _on_meta(preset)
    names = {name.removeprefix("sam_mask_decoder."): name for name in state}
    files.assign(built, {name: state[names[name]] for name in built.state_dict()})
    return built


def decoder(state: Mapping[str, Tensor], preset: Sam2Preset) -> Sam2Decoder:
    """Prompt encoder and mask decoder with these weights."""
    _, built = _on_meta(preset)
    files.assign(
        built,
        {
            ours + name.removeprefix(theirs): tensor
            for theirs, ours in PREFIXES.items()
            for name, tensor in state.items()
            if name.startswith(theirs)
        },
    )
    return built


def state_of(encoder: nn.Module, decoder: nn.Module) -> dict[str, Tensor]:
    """The state dict of a SAM 2 by Meta's keys, without what only video needs.

    Args:
        encoder: a Sam2Encoder; `conv_s0` and `conv_s1`, which the decoder has too, are taken of it.
        decoder: a Sam2Decoder.
    """
    state = {}
    for name, tensor in decoder.state_dict().items():
        for theirs, ours in PREFIXES.items():
            if name.startswith(ours):
                state[theirs + name.removeprefix(ours)] = tensor
    for name, tensor in encoder.state_dict().items():
        prefix = "sam_mask_decoder." if name.startswith(PROJECTIONS) else ""
        state[prefix + name] = tensor
    return state


def _on_meta(preset: Sam2Preset) -> tuple[Sam2Encoder, Sam2Decoder]:
    """Both parts with shapes and no memory."""
    with torch.device("meta"):
        return build_sam2_encoder(preset), build_sam2_decoder(preset)
