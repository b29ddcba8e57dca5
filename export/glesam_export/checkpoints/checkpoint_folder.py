"""Reads and writes checkpoint folders: weight files and a checkpoint.json that names them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from glesam_export.checkpoints import Contents, Finding, Format
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.checkpoints.tensor_file import within
from glesam_export.families import InputName, with_input
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.errors import CheckpointError, InputError
from glesam_runtime.input_paths import read_json_file
from glesam_runtime.staging import staged_file

CHECKPOINT_FILE = "checkpoint.json"
FORMAT_NAME = "glesam-checkpoint"
VERSION = 1

PathText = Annotated[str, Meta(min_length=1)]


class _Header(msgspec.Struct):
    """Fields that are read first, to tell a newer version from a malformed file."""

    format: str = ""
    version: int = 0


class CheckpointJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of checkpoint.json. Paths are relative to its folder or absolute."""

    format: Literal["glesam-checkpoint"]
    version: Literal[1]
    preset: str
    unet: str
    gamma: Annotated[float, Meta(gt=0)]
    timestep: Annotated[int, Meta(ge=0)]
    sam: PathText
    sd: PathText
    """A diffusers folder, usually outside the checkpoint folder."""
    lora: PathText
    prompt_embeds: PathText | None = None
    """None runs the folder's text encoder on ""."""
    unet_config: PathText | None = None
    """config.json of the U-Net if `sd` is a file with only its weights."""
    lora_alpha: Annotated[float, Meta(gt=0)] | None = None
    """Alpha of the LoRA's training, if its file does not say it."""
    decoder: PathText | None = None
    """A fine-tuned decoder that is laid over `sam`."""
    input: InputName = "sam"
    """How images were prepared in the training."""
    prediction_type: Literal["epsilon"] | UnsetType = UNSET
    """What the U-Net's output was read as in the training, if its scheduler says something else."""


def write_checkpoint_json(
    folder: Path,
    weights: WeightFiles,
    preset: str,
    unet: str,
    gamma: float,
    timestep: int,
    input: InputName = "sam",
) -> None:
    """Write the checkpoint.json of a folder of weights, atomically.

    Args:
        folder: an existing folder.
        weights: the files. Paths of files inside the folder are written relative to it, so that
            the folder can be moved; all others absolute.
        preset: name of the SAM preset.
        unet: name of the U-Net preset.
        gamma: adaption weight that the LoRA was trained with.
        timestep: T that the LoRA was trained with.
        input: how images were prepared in the training.

    Raises:
        InputError: a preset is unknown or does not have the input, gamma is not a positive number,
            or the folder or a file name cannot be written.
    """
    with_input(sam_preset(preset), input)
    unet_preset(unet)
    if not (math.isfinite(gamma) and gamma > 0):
        raise InputError(f"--gamma {gamma:g}: must be a positive number")

    def spelled(path: Path | None) -> str | None:
        return None if path is None else _spell(path, folder)

    described = CheckpointJson(
        format="glesam-checkpoint",
        version=1,
        preset=preset,
        unet=unet,
        gamma=gamma,
        timestep=timestep,
        sam=_spell(weights.sam, folder),
        sd=_spell(weights.sd, folder),
        lora=_spell(weights.lora, folder),
        prompt_embeds=spelled(weights.prompt_embeds),
        unet_config=spelled(weights.unet_config),
        lora_alpha=weights.lora_alpha,
        decoder=spelled(weights.decoder),
        input=input,
        prediction_type=weights.prediction_type or UNSET,
    )
    try:
        raw = msgspec.json.format(msgspec.json.encode(described), indent=2)
    except UnicodeEncodeError as error:
        raise InputError(f"{folder}: a file's name is not UTF-8; rename it") from error
    with staged_file(folder / CHECKPOINT_FILE) as partial:
        partial.write_bytes(raw + b"\n")


def read_checkpoint_json(path: Path) -> CheckpointJson:
    """Read and check a checkpoint.json.

    Raises:
        CheckpointError: the file is missing, not JSON, of another format or version, or a field is
            wrong.
    """
    try:
        raw = read_json_file(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); pass a folder that glesam-train wrote, "
            "or single files by --sam, --sd, --lora"
        ) from error
    try:
        header = msgspec.json.decode(raw, type=_Header)
        if header.format != FORMAT_NAME:
            raise CheckpointError(f'{path}: "format" is {header.format!r}, not {FORMAT_NAME!r}')
        if header.version != VERSION:
            raise CheckpointError(
                f"{path}: version {header.version}, this program reads {VERSION}; "
                "use the glesam-deploy that wrote it"
            )
        return msgspec.json.decode(raw, type=CheckpointJson)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}; correct it or train again") from error


def open_folder(folder: Path) -> FileCheckpoint:
    """Open the checkpoint that a folder's checkpoint.json describes."""
    path = folder / CHECKPOINT_FILE
    described = read_checkpoint_json(path)
    embeds, config = described.prompt_embeds, described.unet_config
    weights = WeightFiles(
        folder / described.sam,
        folder / described.sd,
        folder / described.lora,
        None if embeds is None else folder / embeds,
        None if config is None else folder / config,
        described.lora_alpha,
        None if described.decoder is None else folder / described.decoder,
        described.prediction_type or None,
    )
    with within(f"{path}"):
        preset = with_input(sam_preset(described.preset), described.input)
        unet = unet_preset(described.unet)
        return FileCheckpoint(weights, preset, unet, described.gamma, described.timestep)


def _spell(path: Path, folder: Path) -> str:
    """Return a path as checkpoint.json spells it."""
    inside, base = path.absolute(), folder.absolute()
    return (inside.relative_to(base) if inside.is_relative_to(base) else inside).as_posix()


def _describe(contents: Contents) -> Finding:
    """Describe a checkpoint folder by its checkpoint.json."""
    described = read_checkpoint_json(contents.path / CHECKPOINT_FILE)
    words = f"GleSAM checkpoint folder: {described.preset} with {described.unet}, "
    words += f"gamma {described.gamma:g}, timestep {described.timestep}"
    words += "" if described.input == "sam" else f", input {described.input}"
    if described.prediction_type:
        words += f", its U-Net's output is read as {described.prediction_type}"
    return Finding(contents.path, "checkpoint", words, (described.preset,))


FORMAT = Format(
    lambda contents: (contents.path / CHECKPOINT_FILE).is_file(),
    _describe,
    lambda contents: open_folder(contents.path),
)
