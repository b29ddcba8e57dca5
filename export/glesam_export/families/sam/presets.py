"""Lists the SAM architectures as data: those of Meta's released checkpoints, and `nano`.

`nano` is built from the same classes and is small enough to ship and to test with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from glesam_export.families.family import InputName
from glesam_runtime.manifest import EverythingThresholds


@dataclass(frozen=True)
class SamPreset:
    """One SAM: a ViT encoder (ViTDet with decomposed relative positions) and its mask decoder.

    Attributes:
        name: what `--preset` takes.
        image_size: S, side of the encoder's square input in pixels.
        embed_dim: width of the ViT.
        depth: number of ViT blocks.
        heads: attention heads of each block.
        global_blocks: indices of the blocks that attend over the whole image.
        window: side of the attention windows of the other blocks, in patches.
        decoder_mlp: hidden width of the two-way transformer's MLP.
        default_unet: the U-Net when `--unet` is not given.
        builtin: file name of the weights inside this package, used when no weights are given; None
            for all but nano.
        patch: side of a patch in pixels.
        everything: default thresholds of everything-mode; None for segment_anything's.
        input: how an image becomes the encoder's input.
    """

    name: str
    image_size: int
    embed_dim: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int
    decoder_mlp: int
    default_unet: str
    builtin: str | None = None
    patch: int = 16
    everything: EverythingThresholds | None = None
    input: InputName = "sam"
    family: ClassVar[str] = "sam"

    @property
    def latent_size(self) -> int:
        """Return the side of the image embedding, in patches."""
        return self.image_size // self.patch


SAM_PRESETS: Mapping[str, SamPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            SamPreset(
                *("nano", 256, 128, 6, 4, (1, 3, 5), 8, 256, "nano", "nano.safetensors"),
                everything=EverythingThresholds(0.6, 0.8, 1.0),  # measured in docs/nano.md
            ),
            SamPreset("sam_vit_b", 1024, 768, 12, 12, (2, 5, 8, 11), 14, 2048, "sd21"),
            SamPreset("sam_vit_l", 1024, 1024, 24, 16, (5, 11, 17, 23), 14, 2048, "sd21"),
            SamPreset("sam_vit_h", 1024, 1280, 32, 16, (7, 15, 23, 31), 14, 2048, "sd21"),
        )
    }
)
"""The presets by name, with the figures of segment_anything.build_sam."""
