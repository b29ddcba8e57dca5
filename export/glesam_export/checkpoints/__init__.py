"""Reads the weights of a GleSAM from the files that users hold, or draws them from a seed.

A format is one module here and one line in `formats.FORMATS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from glesam_export.families import Preset
from glesam_export.presets import UNetPreset
from glesam_runtime.manifest import Source, TimestepLevel

if TYPE_CHECKING:
    from glesam_export.checkpoints.tensor_file import TensorFile
    from glesam_export.enhancer.reference import Enhancer
    from glesam_export.families.reference_decoder import ReferenceDecoder


class Checkpoint(ABC):
    """A GleSAM whose parts are built one at a time, new on every call.

    So no two large parts need to be in memory together, and a part that `fold` or a graph used up
    can be built again for comparison.

    Attributes:
        preset: the SAM, of any family.
        unet: the U-Net.
        gamma: adaption weight.
        timestep: T.
        schedule: the noise schedule, as a diffusers scheduler_config.json.
        alpha_bar: abar_T.
        levels: all timesteps of an export of several, in ascending order, T among them; empty for
            one. `enhancer` builds the enhancer at T, and `Enhancer.set_level` changes it.
        trained: False for weights that produce meaningless masks.
        origin: where the weights come from, in words, for the manifest.
    """

    preset: Preset
    unet: UNetPreset
    gamma: float
    timestep: int
    schedule: Mapping[str, Any]
    alpha_bar: float
    trained: bool
    origin: str
    levels: tuple[TimestepLevel, ...] = ()

    @abstractmethod
    def encoder(self) -> nn.Module:
        """Build the family's reference encoder, in float32 and eval mode."""

    @abstractmethod
    def enhancer(self) -> Enhancer:
        """Build the unfolded enhancer, in float32 and eval mode."""

    @abstractmethod
    def decoder(self) -> ReferenceDecoder:
        """Build the family's reference decoder, in float32 and eval mode."""

    @abstractmethod
    def sources(self) -> tuple[Source, ...]:
        """Return the files of the weights, with their sha256."""


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
"""What a path holds: a whole GleSAM, a part of one, or something else."""


@dataclass(frozen=True)
class Contents:
    """A path that exists, before its format is known.

    Attributes:
        path: as given.
        tensors: the opened file; None for a folder, a .json or a .npy file.
    """

    path: Path
    tensors: TensorFile | None = None


@dataclass(frozen=True)
class Finding:
    """The result of looking at a path: what it holds.

    Attributes:
        path: as given.
        kind: which part of a GleSAM it is, or "other".
        words: the same for a reader, with details.
        fits: names of the presets that it fits: SAM presets for "sam", U-Net presets for "sd",
            "unet", "lora" and "prompt_embeds".
        lacks: parts that should be there and are missing.
    """

    path: Path
    kind: Kind
    words: str
    fits: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Format:
    """One file format: how to recognise it, describe it and open it.

    Attributes:
        matches: whether a path holds this format. It looks at file names, metadata, and names and
            shapes of tensors only.
        describe: says what a path of this format holds.
        open: opens a whole GleSAM of this format; None for a format of parts.
    """

    matches: Callable[[Contents], bool]
    describe: Callable[[Contents], Finding]
    open: Callable[[Contents], Checkpoint] | None = None
