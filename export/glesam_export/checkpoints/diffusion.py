"""Reads a Stable Diffusion folder: its U-Net and its noise schedule."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

SD_CHANNELS = 4
"""Channels of Stable Diffusion's own latent."""

INDIFFERENT = frozenset({"sample_size", "dropout", "upcast_attention"})
"""Entries of a U-Net config that change nothing of an evaluation in float32."""

WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
)


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
    try:
        scheduler = DDPMScheduler.from_config(dict(schedule))
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: no noise schedule ({files.first_line(error)})") from error
    steps = len(scheduler.alphas_cumprod)
    if not 0 <= timestep < steps:
        raise CheckpointError(f"--timestep {timestep}: outside 0..{steps - 1} of {where}")
    value = float(scheduler.alphas_cumprod[timestep].double())
    if not 0 < value < 1:
        raise CheckpointError(f"{where}: alphas_cumprod[{timestep}] is {value:g}, not inside 0..1")
    return value


def read_schedule(folder: Path) -> tuple[Mapping[str, Any], str]:
    """The folder's scheduler_config.json and its name.

    Raises:
        CheckpointError: missing or not JSON.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    return read_json(path, "scheduler"), str(path)


def find_unet(folder: Path, preset: UNetPreset) -> Path:
    """Refuse a folder whose U-Net is not the preset's, by its configuration.

    Returns:
        The U-Net's weight file.

    Raises:
        CheckpointError: no U-Net there, or one of another preset (which is named).
    """
    config = read_json(folder / "unet" / "config.json", "U-Net")
    wrong = _differences(config, preset)
    if wrong:
        fitting = [p.name for p in UNET_PRESETS.values() if not _differences(config, p)]
        remedy = f"use U-Net {fitting[0]}" if fitting else "no preset fits it"
        raise CheckpointError(
            f"--sd {folder}: its U-Net is not {preset.name} ({files.first_three(wrong)}); {remedy}"
        )
    return weight_file(folder)


def check(state: Mapping[str, Tensor], preset: UNetPreset, where: str) -> None:
    """Refuse a state dict that is not this preset's 4-channel U-Net; `where` names its file.

    Raises:
        CheckpointError: tensors that are missing, misshapen or not finite.
    """
    if problems := files.misfits(on_meta(preset, SD_CHANNELS), state):
        raise CheckpointError(f"{where}: not a {preset.name}: {files.first_three(problems)}")
    if broken := files.unusable(state):
        raise CheckpointError(f"{where}: {files.first_three(broken)}")


def unet(state: Mapping[str, Tensor], preset: UNetPreset) -> UNet2DConditionModel:
    """The U-Net of a state dict that `check` accepts, widened to 256 channels by CRE, float32."""
    built = on_meta(preset)
    files.assign(built, replicate_channels(state, LATENT_CHANNELS))
    return built


def weight_file(folder: Path) -> Path:
    """The U-Net's weights in a diffusers folder.

    Raises:
        CheckpointError: none of the known names is there.
    """
    for name in WEIGHT_FILES:
        if (folder / "unet" / name).is_file():
            return folder / "unet" / name
    raise CheckpointError(f"--sd {folder}: unet/ holds none of {', '.join(WEIGHT_FILES)}")


def on_meta(preset: UNetPreset, channels: int = LATENT_CHANNELS) -> UNet2DConditionModel:
    """The U-Net with shapes and no memory."""
    with torch.device("meta"):
        return build_unet(preset, channels)


def _differences(config: Mapping[str, Any], preset: UNetPreset) -> list[str]:
    """Entries of a U-Net config that make another network of it than the preset's."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple | list) else value

    parameters = inspect.signature(UNet2DConditionModel.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    wanted, found = defaults | dict(preset.config), defaults | dict(config)
    return [
        f"{key} is {plain(found[key])}, not {plain(value)}"
        for key, value in wanted.items()
        if key not in INDIFFERENT and plain(found[key]) != plain(value)
    ]


def read_json(path: Path, what: str) -> Mapping[str, Any]:
    """A JSON object from a diffusers folder.

    Raises:
        CheckpointError: missing, or something else; `what` names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"--sd: no {what} configuration at {path}; give a diffusers folder"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"--sd: {path} is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"--sd: {path} is not a JSON object")
    return value
