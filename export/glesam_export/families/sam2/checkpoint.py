"""Reads and writes SAM 2's weights by the keys of Meta's .pt files."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from glesam_export.checkpoints import state_dicts
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_export.families.sam2.presets import Sam2Preset
from glesam_export.families.sam2.reference import (
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
"""Beginnings of the keys that only video needs: memory of earlier frames and object pointers."""

RELEASE_2_1 = "no_obj_embed_spatial"
"""A key that only release 2.1 has. Nothing else in a file tells the releases apart."""

MEMORY = "memory_attention."
"""Beginning of keys that every complete file has."""

PREFIXES: Mapping[str, str] = {
    "sam_prompt_encoder.": "prompt_encoder.",
    "sam_mask_decoder.": "mask_decoder.",
}
"""The decoder's parts: their names in Meta's files, and in `Sam2Decoder`."""

PROJECTIONS = ("conv_s0.", "conv_s1.")
"""Layers that the files store with the mask decoder and the encoder runs."""


def used(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict without the tensors that only video needs."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(VIDEO)}


def misfits(state: Mapping[str, Tensor], preset: Sam2Preset) -> list[str]:
    """List the differences between a state dict and this preset's SAM 2, with full names."""
    found = state_dicts.shape_misfits(state_dict(*_on_meta(preset)), used(state))
    if preset.release == "2" and RELEASE_2_1 in state:
        found.append(f"{RELEASE_2_1} is present, which only release 2.1 has")
    whole = any(name.startswith(MEMORY) for name in state)
    if preset.release == "2.1" and whole and RELEASE_2_1 not in state:
        found.append(f"{RELEASE_2_1} is missing, which release 2.1 has")
    return found


def encoder(state: Mapping[str, Tensor], preset: Sam2Preset) -> Sam2Encoder:
    """Build the image encoder with these weights."""
    built, _ = _on_meta(preset)
    names = {name.removeprefix("sam_mask_decoder."): name for name in state}
    state_dicts.assign(built, {name: state[names[name]] for name in built.state_dict()})
    return built


def decoder(state: Mapping[str, Tensor], preset: Sam2Preset) -> Sam2Decoder:
    """Build prompt encoder and mask decoder with these weights."""
    _, built = _on_meta(preset)
    state_dicts.assign(
        built,
        {
            ours + name.removeprefix(theirs): tensor
            for theirs, ours in PREFIXES.items()
            for name, tensor in state.items()
            if name.startswith(theirs)
        },
    )
    return built


def state_dict(encoder: nn.Module, decoder: ReferenceDecoder) -> dict[str, Tensor]:
    """Return the weights of a SAM 2 with Meta's keys, without those that only video needs.

    Args:
        encoder: a Sam2Encoder. It holds `conv_s0` and `conv_s1`.
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
    """Build both parts on the meta device: with shapes, but without memory."""
    with torch.device("meta"):
        return build_sam2_encoder(preset), build_sam2_decoder(preset)
