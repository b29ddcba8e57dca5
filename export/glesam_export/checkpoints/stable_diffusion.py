"""Reads a Stable Diffusion base: the U-Net's weights and configuration, and the noise schedule."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor

from glesam_export.checkpoints import Contents, Finding, Format, state_dicts, text_embedding
from glesam_export.checkpoints.sharded_file import ShardedFile
from glesam_export.checkpoints.tensor_file import TensorFile, first_line
from glesam_export.checkpoints.text_embedding import read_json
from glesam_export.enhancer.reference import build_unet, replicate_channels
from glesam_export.presets import UNET_PRESETS, UNetPreset
from glesam_runtime.errors import CheckpointError
from glesam_runtime.interface import LATENT_CHANNELS

SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}
"""Stable Diffusion's noise schedule, used if no file gives another one."""

BETAS = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps")
"""Entries that say the betas of a discrete schedule, if `trained_betas` does not list them."""

SD_CHANNELS = 4
"""Channels of Stable Diffusion's own latent."""

IGNORED = frozenset({"sample_size", "dropout", "upcast_attention"})
"""Entries of a U-Net config that do not affect an evaluation in float32."""

MODEL_KINDS = ("_class_name", "model_type", "image_processor_type", "processor_class", "peft_type")
"""Entries of a JSON file that say what it configures."""

WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "diffusion_pytorch_model.fp16.bin",
    "diffusion_pytorch_model.non_ema.safetensors",
    "diffusion_pytorch_model.non_ema.bin",
)
"""Names of a U-Net's weights in a diffusers folder; the first that is there is read."""

INDEX_FILES = (
    "diffusion_pytorch_model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors.index.fp16.json",
    "diffusion_pytorch_model.bin.index.json",
)
"""Names of the index of weights in several files, looked for after `WEIGHT_FILES`."""


def alpha_bar(timestep: int, schedule: Mapping[str, Any], where: str) -> float:
    """Return abar_T, computed by diffusers' own scheduler.

    Args:
        timestep: T, index of `alphas_cumprod`.
        schedule: a scheduler_config.json, or `SCHEDULE`.
        where: the schedule's file, for messages.

    Raises:
        CheckpointError: T is outside the schedule, the file says no schedule of discrete betas, or
            the U-Net does not predict eps.
    """
    if problem := schedule_problem(schedule):
        raise CheckpointError(f"{where}: {problem}")
    if (kind := prediction_type(schedule)) != "epsilon":
        raise CheckpointError(
            f"{where}: prediction_type is {kind!r}, but GleSAM's single step (Eq. 4) takes a U-Net "
            "that predicts the noise; use a base with prediction_type 'epsilon', or pass "
            "--prediction-type epsilon if the LoRA was trained on this one, as the released code "
            "allows"
        )
    try:
        scheduler = DDPMScheduler.from_config(dict(schedule))
    except (RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: no noise schedule ({first_line(error)})") from error
    steps = len(scheduler.alphas_cumprod)
    if not 0 <= timestep < steps:
        raise CheckpointError(f"--timestep {timestep}: outside 0..{steps - 1} of {where}")
    value = float(scheduler.alphas_cumprod[timestep].double())
    if not 0 < value < 1:
        raise CheckpointError(f"{where}: alphas_cumprod[{timestep}] is {value:g}, not inside 0..1")
    return value


def prediction_type(schedule: Mapping[str, Any]) -> str:
    """Return what a U-Net with this schedule predicts."""
    return str(schedule.get("prediction_type", "epsilon"))


def schedule_problem(schedule: Mapping[str, Any]) -> str | None:
    """Say why a scheduler_config.json gives no alphas_cumprod; None if it does.

    diffusers fills in what is missing from its own defaults, which are not Stable Diffusion's.
    """
    name = schedule.get("_class_name", "this scheduler")
    remedy = "use the scheduler_config.json of the Stable Diffusion base"
    if "FlowMatch" in str(name) or schedule.get("use_flow_sigmas"):
        return f"{name} is for flow matching and has no betas; {remedy}"
    if schedule.get("snr_shift_scale") not in (None, 1, 1.0):
        return f"{name} shifts its betas (snr_shift_scale), as no Stable Diffusion does; {remedy}"
    if schedule.get("trained_betas") is not None:
        return None
    if missing := [key for key in BETAS if schedule.get(key) is None]:
        return f"{name} lacks {', '.join(missing)}, so the noise schedule is unknown; {remedy}"
    return None


class Base:
    """A Stable Diffusion base: U-Net and noise schedule of a folder, or a bare file of weights.

    Args:
        sd: a diffusers folder, or a file with only the U-Net's weights. For a bare file the noise
            schedule is Stable Diffusion's own (`SCHEDULE`).
        config: the config.json of a bare file.
        weights: a bare file that is open already.

    Attributes:
        config: the U-Net's config.json.
        schedule_from: where the schedule lies, for messages.

    Raises:
        CheckpointError: the configuration is missing, superfluous, or cannot be read.
    """

    def __init__(
        self, sd: Path, config: Path | None = None, weights: TensorFile | None = None
    ) -> None:
        self._sd, self._bare = sd, weights
        if sd.is_file():
            if config is None:
                raise CheckpointError(
                    f"--sd {sd}: a file of weights alone does not say how wide its attention heads "
                    "are; pass its config.json by --unet-config, or a diffusers folder"
                )
            self._config_path = config
            self.config = read_json(config, "U-Net", "--unet-config")
            self.schedule_from = "Stable Diffusion's noise schedule"
            return
        if config is not None:
            raise CheckpointError(
                f"--unet-config {config}: goes with a file of weights alone, but {sd} is a folder "
                "with a config.json of its own; leave it out"
            )
        self._config_path = sd / "unet" / "config.json"
        self.config = read_json(self._config_path, "U-Net")
        self.schedule_from = str(sd / "scheduler" / "scheduler_config.json")

    @cached_property
    def schedule(self) -> Mapping[str, Any]:
        """Read the noise schedule, a scheduler_config.json."""
        if self._sd.is_file():
            return SCHEDULE
        return read_json(Path(self.schedule_from), "scheduler")

    @cached_property
    def weights(self) -> TensorFile:
        """Open the U-Net's 4-channel weights."""
        if self._bare is not None:
            return self._bare
        path = self._sd if self._sd.is_file() else weight_file(self._sd)
        return ShardedFile(path, "--sd") if path.name in INDEX_FILES else TensorFile(path, "--sd")

    @property
    def weight_files(self) -> list[Path]:
        """Return the files of the U-Net's weights."""
        return self.weights.files

    def preset(self, wanted: UNetPreset | None = None) -> UNetPreset:
        """Return the U-Net preset of the base.

        Args:
            wanted: the preset that it must be; None accepts any.

        Raises:
            CheckpointError: it is no preset's, or not the wanted one.
        """
        return preset_of(self.config, self._config_path, wanted)


def preset_of(config: Mapping[str, Any], path: Path, wanted: UNetPreset | None) -> UNetPreset:
    """Return the preset that a U-Net's configuration describes.

    Args:
        config: the content of `path`.
        path: for messages.
        wanted: the preset that it must be; None accepts any.

    Raises:
        CheckpointError: it fits no preset, or not the wanted one.
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
            f"({state_dicts.first_three(_differences(config, nearest))})"
        )
    remedy = f"use U-Net {fitting[0].name}" if fitting else "no preset fits it"
    wrong = state_dicts.first_three(_differences(config, wanted))
    raise CheckpointError(f"--sd {path}: its U-Net is not {wanted.name} ({wrong}); {remedy}")


def check(state: Mapping[str, Tensor], preset: UNetPreset, where: str) -> None:
    """Refuse a state dict that is not this preset's 4-channel U-Net; `where` names its file.

    Raises:
        CheckpointError: tensors are missing, have a wrong shape, or are not finite.
    """
    if problems := state_dicts.misfits(on_meta(preset, SD_CHANNELS), state):
        raise CheckpointError(f"{where}: not a {preset.name}: {state_dicts.first_three(problems)}")
    if broken := state_dicts.unusable(state):
        raise CheckpointError(f"{where}: {state_dicts.first_three(broken)}")


def unet(state: Mapping[str, Tensor], preset: UNetPreset) -> UNet2DConditionModel:
    """Build the U-Net from a state dict, widened to 256 channels by CRE, in float32."""
    built = on_meta(preset)
    state_dicts.assign(built, replicate_channels(state, LATENT_CHANNELS))
    return built


def weight_file(folder: Path) -> Path:
    """Find the U-Net's weights in a diffusers folder: the file, or the index of several.

    Raises:
        CheckpointError: no file of a known name is there.
    """
    for name in (*WEIGHT_FILES, *INDEX_FILES):
        if (folder / "unet" / name).is_file():
            return folder / "unet" / name
    raise CheckpointError(f"--sd {folder}: unet/ holds none of {', '.join(WEIGHT_FILES)}")


def on_meta(preset: UNetPreset, channels: int = LATENT_CHANNELS) -> UNet2DConditionModel:
    """Build the U-Net on the meta device: with shapes, but without memory."""
    with torch.device("meta"):
        return build_unet(preset, channels)


def _differences(config: Mapping[str, Any], preset: UNetPreset) -> list[str]:
    """List entries of a U-Net config that describe another network than the preset's."""

    def plain(value: Any) -> Any:
        return list(value) if isinstance(value, tuple | list) else value

    parameters = inspect.signature(UNet2DConditionModel.__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    wanted, found = defaults | dict(preset.config), defaults | dict(config)
    return [
        f"{key} is {plain(found[key])}, not {plain(value)}"
        for key, value in wanted.items()
        if key not in IGNORED and plain(found[key]) != plain(value)
    ]


def _describe_folder(contents: Contents) -> Finding:
    """Describe a diffusers folder."""
    path = contents.path
    base = Base(path)
    name, kind = base.preset().name, prediction_type(base.schedule)
    weight_file(path)
    words = f"diffusers folder, U-Net {name}, predicts {kind}"
    if kind != "epsilon":
        words += " (GleSAM's single step needs one that predicts epsilon, or --prediction-type)"
    if problem := schedule_problem(base.schedule):
        words += f", whose noise schedule cannot be used: {problem}"
    try:
        text_embedding.weight_file(path)
    except CheckpointError:
        return Finding(path, "sd", words, (name,), ("text encoder",))
    return Finding(path, "sd", words, (name,))


def _describe_config(contents: Contents) -> Finding:
    """Describe the config.json of a U-Net, or another JSON file."""
    path = contents.path
    config = read_json(path, "U-Net", "file")
    kind = next((str(config[key]) for key in MODEL_KINDS if config.get(key)), None)
    if kind not in (None, UNet2DConditionModel.__name__):
        return Finding(path, "other", f"configuration of {kind}, which holds no weights")
    name = preset_of(config, path, None).name
    return Finding(path, "config", f"configuration of a U-Net {name}", (name,))


def _holds_unet(contents: Contents) -> bool:
    """Return whether a file holds a U-Net's weights alone."""
    tensors = contents.tensors
    return tensors is not None and {"conv_in.weight", "conv_out.weight"} <= tensors.shapes.keys()


def _describe_unet(contents: Contents) -> Finding:
    """Describe a file of a U-Net's weights alone."""
    assert contents.tensors is not None, "it matched"
    path, state = contents.path, contents.tensors.shapes
    channels = state["conv_in.weight"].shape[1]
    if channels == LATENT_CHANNELS:
        words = "U-Net with its channels replicated; pass the 4-channel base and the LoRA apart"
        return Finding(path, "other", words)
    fits = tuple(
        preset.name
        for preset in UNET_PRESETS.values()
        if not state_dicts.misfits(on_meta(preset, SD_CHANNELS), state)
    )
    named = f"U-Net {fits[0]}" if fits else f"U-Net of no preset, {channels} channels in"
    return Finding(path, "unet", f"{named}, weights alone", fits)


FOLDER = Format(lambda contents: (contents.path / "unet").is_dir(), _describe_folder)
CONFIG = Format(
    lambda contents: contents.path.suffix == ".json" and contents.tensors is None, _describe_config
)
UNET = Format(_holds_unet, _describe_unet)
