"""Where a GleSAM's weights come from: the files users hold, or a seed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from segment_anything.modeling import ImageEncoderViT

from glesam_export.presets import SamPreset, UNetPreset
from glesam_export.reference import Decoder, Enhancer
from glesam_runtime.manifest import Source


class Checkpoint(ABC):
    """A GleSAM whose parts are built one at a time, each afresh on every call.

    No two large parts need be in memory together, and what `fold` or a graph uses up can be built
    again for comparison.

    Attributes:
        preset: the SAM.
        unet: the U-Net.
        gamma: adaption weight.
        timestep: T.
        schedule: the noise schedule, as a diffusers scheduler_config.json.
        alpha_bar: abar_T.
        trained: whether masks mean anything.
        origin: the weights in words, for the manifest.
    """

    preset: SamPreset
    unet: UNetPreset
    gamma: float
    timestep: int
    schedule: Mapping[str, Any]
    alpha_bar: float
    trained: bool
    origin: str

    @abstractmethod
    def encoder(self) -> ImageEncoderViT:
        """SAM's image encoder, float32, in eval mode."""

    @abstractmethod
    def enhancer(self) -> Enhancer:
        """The unfolded enhancer, float32, in eval mode."""

    @abstractmethod
    def decoder(self) -> Decoder:
        """SAM's prompt encoder and mask decoder, float32, in eval mode."""

    @abstractmethod
    def sources(self) -> tuple[Source, ...]:
        """The files the weights came from, with their sha256."""
