"""A packed checkpoint: the whole of a GleSAM in one .safetensors file.

    sam.<key>                          Meta's keys
    unet.<key>                         diffusers' keys, the 4-channel base
    lora.<module>.lora_A.weight        likewise lora_B.weight and alpha
    text                               c, [1, 77, D]

The metadata hold what the tensors cannot say: `Header`.
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

from glesam_export.checkpoints import Checkpoint, diffusion, text, write
from glesam_export.checkpoints import tensors as files
from glesam_export.checkpoints.states import Part, State, StateCheckpoint, source
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.errors import CheckpointError
from glesam_runtime.manifest import Source

FORMAT = "glesam-packed"
VERSION = "1"
TEXT = "text"
PREFIXES = ("sam.", "unet.", "lora.")


class Header(msgspec.Struct, frozen=True):
    """What the file says of itself, beside "format" and "version"; all of it text in the file."""

    preset: str
    unet: str
    gamma: Annotated[float, Meta(gt=0)]
    timestep: Annotated[int, Meta(ge=0)]
    trained: bool
    schedule: str
    """A scheduler_config.json."""
    origin: str = ""
    """How the weights came about, in the packer's words."""


class PackedCheckpoint(StateCheckpoint):
    """Weights from one packed file. A part is read when it is built.

    Args:
        path: the file.
        origin: the weights in words, for the manifest.

    Attributes:
        header: the file's metadata.

    Raises:
        CheckpointError: not a packed checkpoint, damaged, or not what its metadata say.
    """

    def __init__(self, path: Path, origin: str = "packed") -> None:
        self.path, self.origin = path, origin
        self.header = read_metadata(path)
        self.gamma, self.timestep = self.header.gamma, self.header.timestep
        self.trained = self.header.trained
        self.schedule = _read_schedule(self.header.schedule, path)
        with files.within(f"{path}"):
            self.preset = sam_preset(self.header.preset)
            self.unet = unet_preset(self.header.unet)
            self.alpha_bar = diffusion.alpha_bar(self.timestep, self.schedule, "its schedule")
        self.check_parts()
        embedding = files.read_under(path, TEXT).get("")
        if embedding is None:
            raise CheckpointError(f"{path}: {TEXT} is missing; pack the checkpoint again")
        self.text = text.checked(embedding, self.unet, f"{path} ({TEXT})")

    def state(self, part: Part) -> State:
        """The tensors of one part."""
        return State(files.read_under(self.path, f"{part}."), f"{self.path} ({part})")

    def sources(self) -> tuple[Source, ...]:
        """The one file, hashed."""
        return (source("packed", self.path),)


def pack(
    checkpoint: Checkpoint, path: Path, dtype: torch.dtype = torch.float16, origin: str = ""
) -> None:
    """Write a checkpoint as one file. Packing what was unpacked gives the same tensors again.

    Args:
        checkpoint: any; it is read part by part.
        path: a .safetensors file.
        dtype: of all weights.
        origin: how the weights came about, in words.

    Raises:
        CheckpointError: a weight that `dtype` cannot hold.
        InputError: `path` cannot be written.
    """
    sam = write.sam_state(checkpoint.encoder(), checkpoint.decoder())
    with files.within(f"{path}"):
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
        "format": FORMAT,
        "version": VERSION,
        "preset": checkpoint.preset.name,
        "unet": checkpoint.unet.name,
        "gamma": repr(float(checkpoint.gamma)),
        "timestep": str(checkpoint.timestep),
        "trained": "true" if checkpoint.trained else "false",
        "schedule": json.dumps(dict(checkpoint.schedule)),
        "origin": origin,
    }
    write.save_tensors(path, tensors, metadata)


def _cast(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Weights in another dtype, none of them past its range."""
    cast = {
        name: tensor.detach().to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    if broken := files.unusable(cast):
        raise CheckpointError(
            f"{files.first_three(broken)} in {str(dtype).removeprefix('torch.')}; "
            "pack in another dtype, or mend the weights"
        )
    return cast


def read_metadata(path: Path) -> Header:
    """A packed file's metadata, once it is known to be one and no tensor in it to be foreign.

    Raises:
        CheckpointError: another file, another version, or metadata amiss.
    """
    metadata, names = files.read_header(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not a packed checkpoint (its metadata's format is "
            f"{metadata.get('format')!r}, not {FORMAT!r}); pass single files by --sam, --sd, --lora"
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
    foreign = [f"{n} is unknown" for n in names if n != TEXT and not n.startswith(PREFIXES)]
    if foreign:
        raise CheckpointError(f"{path}: {files.first_three(sorted(foreign))}")
    return header


def _read_schedule(raw: str, path: Path) -> dict[str, object]:
    """The noise schedule, a JSON object."""
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.DecodeError, RecursionError) as error:
        raise CheckpointError(f"{path}: schedule: {error}; pack the checkpoint again") from error
