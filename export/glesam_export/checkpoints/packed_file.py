"""Reads and writes packed checkpoints: a whole GleSAM in one .safetensors file.

    sam.<key>                          Meta's keys
    unet.<key>                         diffusers' keys, the 4-channel base
    lora.<module>.lora_A.weight        likewise lora_B.weight and alpha
    text                               c, [1, 77, D]

The metadata hold everything else: see `Header`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from glesam_export.checkpoints import (
    Checkpoint,
    Contents,
    Finding,
    Format,
    stable_diffusion,
    state_dicts,
    text_embedding,
    write,
)
from glesam_export.checkpoints.state_checkpoint import Part, State, StateCheckpoint, source
from glesam_export.checkpoints.tensor_file import TensorFile, within
from glesam_export.families import InputName, with_input
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.errors import CheckpointError
from glesam_runtime.manifest import Source

FORMAT_NAME = "glesam-packed"
VERSION = "1"
TEXT = "text"
PREFIXES = ("sam.", "unet.", "lora.")


class Header(msgspec.Struct, frozen=True):
    """Entries of the metadata beside "format" and "version"; the file stores all as text."""

    preset: str
    unet: str
    gamma: Annotated[float, Meta(gt=0)]
    timestep: Annotated[int, Meta(ge=0)]
    trained: bool
    schedule: str
    """A scheduler_config.json."""
    origin: str = ""
    """How the weights were made, in words."""
    input: InputName = "sam"
    """How images were prepared in the training."""


class PackedCheckpoint(StateCheckpoint):
    """Weights from one packed file. A part is read when it is built.

    Args:
        path: the file.
        origin: where the weights come from, in words, for the manifest.
        opened: the same file, if it is open already.

    Attributes:
        header: the file's metadata.

    Raises:
        CheckpointError: the file is no packed checkpoint, is damaged, or contradicts its metadata.
    """

    def __init__(
        self, path: Path, origin: str = "packed", opened: TensorFile | None = None
    ) -> None:
        self.path, self.origin = path, origin
        self._file = opened or TensorFile(path)
        self.header = read_header(self._file)
        self.gamma, self.timestep = self.header.gamma, self.header.timestep
        self.trained = self.header.trained
        self.schedule = _read_schedule(self.header.schedule, path)
        with within(f"{path}"):
            self.preset = with_input(sam_preset(self.header.preset), self.header.input)
            self.unet = unet_preset(self.header.unet)
            self.alpha_bar = stable_diffusion.alpha_bar(
                self.timestep, self.schedule, "its schedule"
            )
        self.check_parts()
        embedding = self._file.read(TEXT).get("")
        if embedding is None:
            raise CheckpointError(f"{path}: {TEXT} is missing; pack the checkpoint again")
        self.text = text_embedding.checked(embedding, self.unet, f"{path} ({TEXT})")

    def state(self, part: Part) -> State:
        """Read the tensors of one part."""
        return State(self._file.read(f"{part}."), f"{self.path} ({part})")

    def sources(self) -> tuple[Source, ...]:
        """Hash the file."""
        return (source("packed", self.path),)


def pack(
    checkpoint: Checkpoint, path: Path, dtype: torch.dtype = torch.float16, origin: str = ""
) -> None:
    """Write a checkpoint as one file. Packing a packed checkpoint gives the same tensors.

    Args:
        checkpoint: any checkpoint; it is read part by part.
        path: a .safetensors file.
        dtype: type of all weights.
        origin: how the weights were made, in words.

    Raises:
        CheckpointError: `dtype` cannot hold a weight.
        InputError: `path` cannot be written.
    """
    sam = write.sam_state(checkpoint.preset, checkpoint.encoder(), checkpoint.decoder())
    with within(f"{path}"):
        tensors = _cast({f"sam.{name}": tensor for name, tensor in sam.items()}, dtype)
        del sam
        enhancer = checkpoint.enhancer()
        base = write.base_state(enhancer.unet)
        tensors |= _cast({f"unet.{name}": tensor for name, tensor in base.items()}, dtype)
        tensors |= _cast({TEXT: enhancer.text}, dtype)
        for name, (a, b, alpha) in write.adapters(enhancer.unet).items():
            factors = {f"lora.{name}.lora_A.weight": a, f"lora.{name}.lora_B.weight": b}
            tensors |= _cast(factors, dtype)
            tensors[f"lora.{name}.alpha"] = torch.tensor(alpha)
    metadata = {
        "format": FORMAT_NAME,
        "version": VERSION,
        "preset": checkpoint.preset.name,
        "unet": checkpoint.unet.name,
        "gamma": repr(float(checkpoint.gamma)),
        "timestep": str(checkpoint.timestep),
        "trained": "true" if checkpoint.trained else "false",
        "schedule": json.dumps(dict(checkpoint.schedule)),
        "origin": origin,
    }
    if checkpoint.preset.input != "sam":
        metadata["input"] = checkpoint.preset.input
    write.save_tensors(path, tensors, metadata)


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Cast weights, and refuse those outside the range of `dtype`."""
    cast = {
        name: tensor.detach().to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    if broken := state_dicts.unusable(cast):
        raise CheckpointError(
            f"{state_dicts.first_three(broken)} in {str(dtype).removeprefix('torch.')}; "
            "pack in another dtype, or mend the weights"
        )
    return cast


def read_header(file: TensorFile) -> Header:
    """Read a packed file's metadata, and check the names of its tensors.

    Raises:
        CheckpointError: another format or version, wrong metadata, or unknown tensors.
    """
    path, metadata = file.path, file.metadata
    if metadata.get("format") != FORMAT_NAME:
        raise CheckpointError(
            f"{path}: not a packed checkpoint (its metadata's format is "
            f"{metadata.get('format')!r}, not {FORMAT_NAME!r}); pass single "
            "files by --sam, --sd, --lora"
        )
    version = metadata.get("version")
    if version != VERSION:
        raise CheckpointError(
            f"{path}: packed in version {version}, this program reads {VERSION}; "
            "upgrade glesam-deploy or pack the checkpoint again"
        )
    try:
        header = msgspec.convert(metadata, Header, strict=False)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path}: metadata: {error}; pack the checkpoint again") from error
    if not math.isfinite(header.gamma):
        raise CheckpointError(f"{path}: gamma is {header.gamma:g}; pack the checkpoint again")
    foreign = [f"{n} is unknown" for n in file.shapes if n != TEXT and not n.startswith(PREFIXES)]
    if foreign:
        raise CheckpointError(f"{path}: {state_dicts.first_three(sorted(foreign))}")
    return header


def _read_schedule(raw: str, path: Path) -> dict[str, object]:
    """Parse the noise schedule, a JSON object."""
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: schedule: {error}; pack the checkpoint again") from error


def _matches(contents: Contents) -> bool:
    """Return whether a file's metadata say that it is packed."""
    return contents.tensors is not None and contents.tensors.metadata.get("format") == FORMAT_NAME


def _describe(contents: Contents) -> Finding:
    """Describe a packed checkpoint by its metadata."""
    assert contents.tensors is not None, "it matched"
    header = read_header(contents.tensors)
    words = f"packed GleSAM checkpoint: {header.preset} with {header.unet}, "
    words += f"gamma {header.gamma:g}, timestep {header.timestep}"
    words += "" if header.input == "sam" else f", input {header.input}"
    return Finding(contents.path, "packed", words, (header.preset,))


def _open(contents: Contents) -> PackedCheckpoint:
    """Open a packed checkpoint."""
    return PackedCheckpoint(contents.path, opened=contents.tensors)


FORMAT = Format(_matches, _describe, _open)
