"""Reads a Stable Diffusion base: its U-Net and its noise schedule."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Base:
    """A Stable Diffusion U-Net as files, of which no tensor is read yet.

    Attributes:
        preset: the U-Net.
        weights: its 4-channel weights.
        schedule: the noise schedule, as a scheduler_config.json.
        schedule_from: where the schedule stands, for messages.
    """

    preset: UNetPreset
    weights: Path
    schedule: Mapping[str, Any]
    schedule_from: str


def open_base(sd: Path, config: Path | None = None, preset: UNetPreset | None = None) -> Base:
    """Find U-Net and noise schedule in a diffusers folder, or beside a bare file of weights.

    Args:
        sd: a diffusers folder, or a file of the U-Net's weights alone, whose noise schedule is
            taken to be Stable Diffusion's own (`SCHEDULE`).
        config: the config.json of a bare file.
        preset: the U-Net it must be; None takes the one that it is.

    Raises:
        CheckpointError: no U-Net there, or one of no preset, or of another one (which is named).
    """
    if sd.is_file():
        if config is None:
            raise CheckpointError(
                f"--sd {sd}: a file of weights alone does not say how wide its attention heads "
                "are; pass its config.json by --unet-config, or a diffusers folder"
            )
        found = preset_of(read_json(config, "U-Net", "--unet-config"), config, preset)
        return Base(found, sd, SCHEDULE, "Stable Diffusion's noise schedule")
    if config is not None:
        raise CheckpointError(
            f"--unet-config {config}: goes with a file of weights alone, and {sd} is a folder with "
            "a config.json of its own; leave it out"
        )
    unet_config = sd / "unet" / "config.json"
    found = preset_of(read_json(unet_config, "U-Net"), unet_config, preset)
    schedule = sd / "scheduler" / "scheduler_config.json"
    return Base(found, weight_file(sd), read_json(schedule, "scheduler"), str(schedule))


def preset_of(config: Mapping[str, Any], path: Path, wanted: UNetPreset | None) -> UNetPreset:
    """The preset that a U-Net's configuration is.

    Args:
        config: what `path` holds.
        path: for messages.
        wanted: the preset it must be; None takes any.

    Raises:
        CheckpointError: none, or not the one wanted.
    """
    if wanted is not None and not _differences(config, wanted):
        return wanted
    fitting = [p for p in UNET_PRESETS.values() if not _differences(config, p)]
    if wanted is None:
        if fitting:
            return fitting[0]
        nearest = min(UNET_PRESETS.values(), key=lambda p: len(_differences(config, p)))
        raise CheckpointError(
            f"--sd {path}: its U-Net fits no preset; next is {nearest.name} "
            f"({files.first_three(_differences(config, nearest))})"
        )
    remedy = f"use U-Net {fitting[0].name}" if fitting else "no preset fits it"
    wrong = files.first_three(_differences(config, wanted))
    raise CheckpointError(f"--sd {path}: its U-Net is not {wanted.name} ({wrong}); {remedy}")


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


def read_json(path: Path, what: str, option: str = "--sd") -> Mapping[str, Any]:
    """A JSON object, of a diffusers folder or given by an option of its own.

    Raises:
        CheckpointError: missing, or something else; `what` names it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{option}: no {what} configuration at {path}; give a diffusers folder"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{option}: {path} is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{option}: {path} is not a JSON object")
    return value
