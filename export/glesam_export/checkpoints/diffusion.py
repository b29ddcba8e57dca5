"""Reads a Stable Diffusion folder: its U-Net, its schedule, its embedding of the empty prompt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from glesam_export.checkpoints import tensors as files
from glesam_export.presets import LATENT_CHANNELS, UNET_PRESETS, UNetPreset
from glesam_export.reference import build_unet, replicate_channels
from glesam_runtime.errors import CheckpointError

SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}
"""Stable Diffusion's noise schedule, where no folder says otherwise."""

WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)

TOKENS = 77
"""Length of CLIP's text embedding."""


def alpha_bar(timestep: int, schedule: Mapping[str, Any], where: str) -> float:
    """abar_T, by diffusers' own scheduler.

    Args:
        timestep: T, index of `alphas_cumprod`.
        schedule: a scheduler_config.json, or `SCHEDULE`.
        where: the file it came from, for messages.

    Raises:
        CheckpointError: T outside the schedule, or a U-Net that does not predict eps.
    """
    kind = schedule.get("prediction_type", "epsilon")
    if kind != "epsilon":
        raise CheckpointError(
            f"{where}: prediction_type is {kind!r}, but GleSAM's single step (Eq. 4) takes a U-Net "
            "that predicts the noise; use a base with prediction_type 'epsilon'"
        )
    scheduler = DDPMScheduler.from_config(dict(schedule))
    steps = len(scheduler.alphas_cumprod)
    if not 0 <= timestep < steps:
        raise CheckpointError(f"--timestep {timestep}: outside 0..{steps - 1} of {where}")
    return float(scheduler.alphas_cumprod[timestep].double())


def read_schedule(folder: Path) -> tuple[Mapping[str, Any], str]:
    """The folder's scheduler_config.json and its name.

    Raises:
        CheckpointError: missing or not JSON.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    return _read_json(path, "scheduler"), str(path)


def check_unet(folder: Path, preset: UNetPreset) -> Path:
    """Refuse a folder whose U-Net is not the preset's, by its configuration.

    Returns:
        The U-Net's weight file.

    Raises:
        CheckpointError: no U-Net there, or one of another preset (which is named).
    """
    config = _read_json(folder / "unet" / "config.json", "U-Net")
    wrong = _differences(config, preset)
    if wrong:
        fitting = [p.name for p in UNET_PRESETS.values() if not _differences(config, p)]
        remedy = f"use --unet {fitting[0]}" if fitting else "no preset fits it"
        raise CheckpointError(
            f"--sd {folder}: its U-Net is not {preset.name} ({files.first_three(wrong)}); {remedy}"
        )
    return weight_file(folder)


def read_unet(path: Path, preset: UNetPreset) -> UNet2DConditionModel:
    """The U-Net of a weight file, widened to 256 channels by CRE, float32.

    Raises:
        CheckpointError: unreadable, or tensors that do not fit.
    """
    state = files.read(path, "--sd")
    base = state.get("conv_in.weight")
    if base is None or base.ndim != 4 or LATENT_CHANNELS % base.shape[1]:
        raise CheckpointError(f"--sd {path}: conv_in.weight is missing or has a wrong shape")
    wide = replicate_channels(state, LATENT_CHANNELS)
    with torch.device("meta"):
        unet = build_unet(preset)
    if problems := files.misfits(unet, wide):
        raise CheckpointError(f"--sd {path}: not a {preset.name}: {files.first_three(problems)}")
    files.assign(unet, wide)
    return unet


def weight_file(folder: Path) -> Path:
    """The U-Net's weights in a diffusers folder.

    Raises:
        CheckpointError: none of the known names is there.
    """
    for name in WEIGHT_FILES:
        if (folder / "unet" / name).is_file():
            return folder / "unet" / name
    raise CheckpointError(f"--sd {folder}: unet/ holds none of {', '.join(WEIGHT_FILES)}")


def read_text(path: Path, preset: UNetPreset) -> Tensor:
    """A text embedding from a .npy or .safetensors file: [1, 77, D] float32.

    Raises:
        CheckpointError: unreadable, more than one tensor, or another shape.
    """
    if path.suffix == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(
                f"--prompt-embeds {path}: not a .npy of numbers ({error})"
            ) from error
        if array.dtype.kind != "f":
            raise CheckpointError(f"--prompt-embeds {path}: dtype is {array.dtype}, not a float")
        text = torch.from_numpy(array).float()
    else:
        state = files.read(path, "--prompt-embeds")
        if len(state) != 1:
            raise CheckpointError(
                f"--prompt-embeds {path}: holds {len(state)} tensors, expected one [1,77,D]"
            )
        text = next(iter(state.values())).float()
    wanted = [1, TOKENS, preset.text_dim]
    if list(text.shape) != wanted:
        raise CheckpointError(
            f"--prompt-embeds {path}: shape is {list(text.shape)}, {preset.name} takes {wanted}"
        )
    return text


def encode_empty_prompt(folder: Path, preset: UNetPreset) -> Tensor:
    """The folder's own text encoder run on "": [1, 77, D] float32.

    Raises:
        CheckpointError: no tokenizer or text encoder there, or one of another width.
    """
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise CheckpointError(
                f"--sd {folder}: no {part}/ to embed the empty prompt with; "
                "add it or pass --prompt-embeds FILE"
            )
    from transformers import CLIPTextModel, CLIPTokenizer

    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True)
    except (OSError, ValueError) as error:
        line = str(error).splitlines()[0]
        raise CheckpointError(f"--sd {folder}: text encoder cannot be loaded ({line})") from error
    ids = tokenizer("", padding="max_length", max_length=TOKENS, return_tensors="pt").input_ids
    with torch.no_grad():
        text: Tensor = encoder.eval()(ids)[0].float()
    if text.shape[-1] != preset.text_dim:
        raise CheckpointError(
            f"--sd {folder}: text encoder gives {text.shape[-1]} dimensions, "
            f"{preset.name} takes {preset.text_dim}"
        )
    return text


def _differences(config: Mapping[str, Any], preset: UNetPreset) -> list[str]:
    """Entries of a U-Net config that differ from the preset's; widths and attention, not names."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple | list) else value

    wanted = {**preset.config}
    wanted.pop("sample_size")
    wanted.setdefault("use_linear_projection", False)
    return [
        f"{key} is {plain(config.get(key, False))}, not {plain(value)}"
        for key, value in wanted.items()
        if plain(config.get(key, False)) != plain(value)
    ]


def _read_json(path: Path, what: str) -> Mapping[str, Any]:
    """A JSON object from a diffusers folder."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"--sd: no {what} configuration at {path}; give a diffusers folder"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"--sd: {path} is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"--sd: {path} is not a JSON object")
    return value
