"""A checkpoint in one piece: the folder that training leaves behind, or a packed file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from glesam_export.checkpoints.files import FileCheckpoint, WeightFiles
from glesam_export.checkpoints.packed import PackedCheckpoint
from glesam_export.checkpoints.states import StateCheckpoint
from glesam_export.checkpoints.tensors import within
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.errors import CheckpointError, InputError
from glesam_runtime.staging import staged_file

CHECKPOINT_FILE = "checkpoint.json"
FORMAT = "glesam-checkpoint"
VERSION = 1

PathText = Annotated[str, Meta(min_length=1)]


class _Header(msgspec.Struct):
    """What is read first, so that a newer file is called newer and not malformed."""

    format: str = ""
    version: int = 0


class CheckpointJson(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """checkpoint.json. Paths are relative to its folder or absolute."""

    format: Literal["glesam-checkpoint"]
    version: Literal[1]
    preset: str
    unet: str
    gamma: Annotated[float, Meta(gt=0)]
    timestep: Annotated[int, Meta(ge=0)]
    sam: PathText
    sd: PathText
    """A diffusers folder, which usually lies outside."""
    lora: PathText
    prompt_embeds: PathText | None = None
    """None runs the folder's text encoder on ""."""
    unet_config: PathText | None = None
    """config.json of a U-Net that `sd` is the bare weights of."""


def open_checkpoint(path: Path) -> StateCheckpoint:
    """Open a checkpoint folder or a packed file.

    Args:
        path: a folder that holds checkpoint.json, or a .safetensors file that `pack` wrote.

    Raises:
        CheckpointError: neither, or weights in it that cannot be used.
    """
    if path.is_dir():
        return _open_folder(path)
    if path.is_file():
        return PackedCheckpoint(path)
    raise CheckpointError(
        f"{path}: no such checkpoint; pass a folder that holds {CHECKPOINT_FILE} or a packed file"
    )


def write_checkpoint_json(
    folder: Path, weights: WeightFiles, preset: str, unet: str, gamma: float, timestep: int
) -> None:
    """Make a checkpoint of a folder of weights, atomically.

    Args:
        folder: an existing folder.
        weights: the files; those inside the folder are named relative to it, so that they move
            with it, all others absolutely.
        preset: the SAM's name.
        unet: the U-Net's name.
        gamma: adaption weight the LoRA was trained with.
        timestep: T the LoRA was trained with.

    Raises:
        InputError: unknown names, a gamma that is not a positive number, or a folder or file name
            that cannot be written.
    """
    sam_preset(preset)
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
        CheckpointError: missing, not JSON, not ours, another version, or a field amiss.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error.strerror}); pass a folder that glesam-train wrote, "
            "or single files by --sam, --sd, --lora"
        ) from error
    try:
        header = msgspec.json.decode(raw, type=_Header)
        if header.format != FORMAT:
            raise CheckpointError(f'{path}: "format" is {header.format!r}, not {FORMAT!r}')
        if header.version != VERSION:
            raise CheckpointError(
                f"{path}: version {header.version}, this program reads {VERSION}; "
                "use the glesam-deploy that wrote it"
            )
        return msgspec.json.decode(raw, type=CheckpointJson)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: {error}; mend it or train again") from error


def _open_folder(folder: Path) -> FileCheckpoint:
    """The checkpoint that a folder's checkpoint.json describes."""
    path = folder / CHECKPOINT_FILE
    described = read_checkpoint_json(path)
    embeds, config = described.prompt_embeds, described.unet_config
    weights = WeightFiles(
        folder / described.sam,
        folder / described.sd,
        folder / described.lora,
        None if embeds is None else folder / embeds,
        None if config is None else folder / config,
    )
    with within(f"{path}"):
        preset, unet = sam_preset(described.preset), unet_preset(described.unet)
        return FileCheckpoint(weights, preset, unet, described.gamma, described.timestep)


def _spell(path: Path, folder: Path) -> str:
    """A path as checkpoint.json names it."""
    inside, base = path.absolute(), folder.absolute()
    return (inside.relative_to(base) if inside.is_relative_to(base) else inside).as_posix()
