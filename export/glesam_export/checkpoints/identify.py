"""Says what a file is and which preset it fits.

Only names and shapes are looked at, so a file of gigabytes is known in a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from glesam_export.checkpoints import diffusion, lora, packed, sam, saved, text
from glesam_export.checkpoints import tensors as files
from glesam_export.presets import (
    LATENT_CHANNELS,
    SAM2_PRESETS,
    SAM_PRESETS,
    UNET_PRESETS,
)
from glesam_runtime.errors import CheckpointError
from glesam_runtime.manifest import MANIFEST_FILE

Kind = Literal[
    "bundle",
    "checkpoint",
    "packed",
    "sam",
    "sd",
    "unet",
    "lora",
    "prompt_embeds",
    "config",
    "other",
]


SAM2_PARTS = ("image_encoder", "sam_prompt_encoder", "sam_mask_decoder")
"""Prefixes of what an image needs of a SAM 2."""

SAM2_KEYS = ("image_encoder.trunk.", "sam_prompt_encoder.", "sam_mask_decoder.")
SAM_KEYS = (*(f"{part}." for part in sam.PARTS), *SAM2_KEYS)
"""How the names of a SAM's tensors begin."""


@dataclass(frozen=True)
class Finding:
    """What a path holds.

    Attributes:
        path: as it was given.
        kind: which part of a GleSAM, or "other".
        words: the same for a reader, with what is worth knowing.
        fits: names of the presets that it fits: SAMs for "sam", U-Nets for "sd", "unet", "lora"
            and "prompt_embeds".
        lacks: parts that should be there and are not.
    """

    path: Path
    kind: Kind
    words: str
    fits: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


def identify(path: Path) -> Finding:
    """Find out what a file or folder is.

    Raises:
        CheckpointError: missing, unreadable, or a pickle that would run code.
    """
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".json":
        return _config(path)
    if path.suffix == ".npy" and path.is_file():
        return _embedding(path, _npy_shape(path))
    if path.suffix == ".safetensors" and path.is_file():
        metadata, _ = files.read_header(path)
        if metadata.get("format") == packed.FORMAT:
            header = packed.read_metadata(path)
            words = f"packed GleSAM checkpoint: {header.preset} with {header.unet}, "
            words += f"gamma {header.gamma:g}, timestep {header.timestep}"
            return Finding(path, "packed", words, (header.preset,))
    return tensors(path, "file")


def tensors(path: Path, option: str) -> Finding:
    """Find out what a file of tensors is; `option` is what it was given by, for messages.

    Raises:
        CheckpointError: missing, unreadable, or a pickle that would run code.
    """
    return _state(path, files.read_shapes(path, option))


def _folder(path: Path) -> Finding:
    """A bundle, a checkpoint folder or a diffusers folder."""
    if (path / MANIFEST_FILE).is_file():
        return Finding(path, "bundle", "exported bundle; run it with glesam-run --bundle")
    if (path / saved.CHECKPOINT_FILE).is_file():
        described = saved.read_checkpoint_json(path / saved.CHECKPOINT_FILE)
        words = f"GleSAM checkpoint folder: {described.preset} with {described.unet}, "
        words += f"gamma {described.gamma:g}, timestep {described.timestep}"
        return Finding(path, "checkpoint", words, (described.preset,))
    if (path / "unet").is_dir():
        base = diffusion.open_base(path)
        kind = base.schedule.get("prediction_type", "epsilon")
        words = f"diffusers folder, U-Net {base.preset.name}, predicts {kind}"
        if kind != "epsilon":
            words += " (GleSAM's single step needs one that predicts epsilon)"
        try:
            text.weight_file(path)
        except CheckpointError:
            return Finding(path, "sd", words, (base.preset.name,), ("text encoder",))
        return Finding(path, "sd", words, (base.preset.name,))
    return Finding(path, "other", "folder without manifest.json, checkpoint.json or unet/")


def _config(path: Path) -> Finding:
    """The config.json of a U-Net."""
    config = diffusion.read_json(path, "U-Net", "file")
    preset = diffusion.preset_of(config, path, None)
    return Finding(path, "config", f"configuration of a U-Net {preset.name}", (preset.name,))


def _state(path: Path, state: Mapping[str, Tensor]) -> Finding:
    """A state dict, by the names of its tensors and their shapes."""
    names = list(state)
    if any(lora.KEY.match(name) for name in names):
        return _lora(path, state)
    if any(name.startswith(SAM_KEYS) for name in names):
        return _sam(path, state)
    if "conv_in.weight" in state and "conv_out.weight" in state:
        return _unet(path, state)
    if len(state) == 1:
        return _embedding(path, next(iter(state.values())).shape)
    if any(name.startswith("model.diffusion_model.") for name in names):
        words = "Stable Diffusion in one file; convert it to a diffusers folder"
        return Finding(path, "other", words)
    if any(name.startswith("text_model.") for name in names):
        return Finding(path, "other", "text encoder; pass the diffusers folder that holds it")
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Finding(path, "other", f"file of tensors of no kind known here: {shown}")


def _sam(path: Path, state: Mapping[str, Tensor]) -> Finding:
    """A SAM or a SAM 2, whole or in part."""
    second = any(name.startswith(SAM2_KEYS) for name in state)
    named = "SAM 2" if second else "SAM"
    parts = SAM2_PARTS if second else tuple(sam.PARTS)
    presets = SAM2_PRESETS.values() if second else SAM_PRESETS.values()
    lacks = tuple(part for part in parts if not any(name.startswith(f"{part}.") for name in state))
    if lacks:
        return Finding(path, "sam", f"part of a {named}, without {' and '.join(lacks)}", (), lacks)
    wrong = {preset.name: sam.misfits(state, preset) for preset in presets}
    fits = tuple(name for name, misfits in wrong.items() if not misfits)
    if fits:
        return Finding(path, "sam", f"{named}, whole: {' or '.join(fits)}", fits)
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    words = f"{named} of no preset; next is {nearest} ({files.first_three(wrong[nearest])})"
    return Finding(path, "sam", words)


def _unet(path: Path, state: Mapping[str, Tensor]) -> Finding:
    """A U-Net's weights alone."""
    channels = state["conv_in.weight"].shape[1]
    if channels == LATENT_CHANNELS:
        words = "U-Net with its channels replicated; pass the 4-channel base and the LoRA apart"
        return Finding(path, "other", words)
    fits = tuple(
        preset.name
        for preset in UNET_PRESETS.values()
        if not files.misfits(diffusion.on_meta(preset, diffusion.SD_CHANNELS), state)
    )
    named = f"U-Net {fits[0]}" if fits else f"U-Net of no preset, {channels} channels in"
    return Finding(path, "unet", f"{named}, weights alone", fits)


def _lora(path: Path, state: Mapping[str, Tensor]) -> Finding:
    """Adapters."""
    matches = [match for name in state if (match := lora.KEY.match(name))]
    downs = {match["module"]: state[match.string] for match in matches if match["down"]}
    ranks = sorted({tensor.shape[0] for tensor in downs.values() if tensor.ndim})
    loaded = files.read(path, "file")
    fits, reasons = [], []
    for preset in UNET_PRESETS.values():
        try:
            lora.parse(loaded, diffusion.on_meta(preset), "")
            fits.append(preset.name)
        except CheckpointError as error:
            reasons.append((str(error).count(";"), str(error).removeprefix(": ")))
    words = f"LoRA of {len(downs)} layers, rank {', '.join(map(str, ranks))}"
    if fits:
        return Finding(path, "lora", f"{words}, for U-Net {fits[0]}", tuple(fits))
    return Finding(path, "lora", f"{words}, for none of the U-Nets known here: {min(reasons)[1]}")


def _embedding(path: Path, shape: tuple[int, ...]) -> Finding:
    """A single tensor: c, if it has the shape."""
    fits = tuple(
        preset.name
        for preset in UNET_PRESETS.values()
        if tuple(shape) == (1, text.TOKENS, preset.text_dim)
    )
    if not fits:
        return Finding(path, "other", f"single tensor of shape {list(shape)}")
    return Finding(path, "prompt_embeds", f"text embedding for U-Net {fits[0]}", fits)


def _npy_shape(path: Path) -> tuple[int, ...]:
    """The shape of an array on disk."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: not a .npy of numbers ({error})") from error
    if not isinstance(array, np.ndarray):
        raise CheckpointError(f"{path}: an archive of arrays, not a .npy of one")
    return tuple(array.shape)
