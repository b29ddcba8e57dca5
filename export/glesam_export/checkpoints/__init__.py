"""Where a GleSAM's weights come from: the files users hold, or a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from glesam_export.presets import Preset, UNetPreset
from glesam_export.reference import Decoder, Enhancer
from glesam_runtime.manifest import Source

if TYPE_CHECKING:
    from glesam_export.reference_sam2 import Sam2Decoder


class Checkpoint(ABC):
    """A GleSAM whose parts are built one at a time, each afresh on every call.

    No two large parts need be in memory together, and what `fold` or a graph uses up can be built
    again for comparison.

    Attributes:
        preset: the SAM or SAM 2.
        unet: the U-Net.
        gamma: adaption weight.
        timestep: T.
        schedule: the noise schedule, as a diffusers scheduler_config.json.
        alpha_bar: abar_T.
        trained: whether masks mean anything.
        origin: the weights in words, for the manifest.
    """

    preset: Preset
    unet: UNetPreset
    gamma: float
    timestep: int
    schedule: Mapping[str, Any]
    alpha_bar: float
    trained: bool
    origin: str

    @abstractmethod
    def encoder(self) -> nn.Module:
        """The image encoder, float32, in eval mode: an ImageEncoderViT or a Sam2Encoder."""

    @abstractmethod
    def enhancer(self) -> Enhancer:
        """The unfolded enhancer, float32, in eval mode."""

    @abstractmethod
    def decoder(self) -> Decoder | Sam2Decoder:
        """Prompt encoder and mask decoder, float32, in eval mode."""

    @abstractmethod
    def sources(self) -> tuple[Source, ...]:
        """The files the weights came from, with their sha256."""
