"""The architectures this exporter knows, as data.

SAM's are those of Meta's released checkpoints (segment_anything.build_sam); the U-Nets' are the
`unet/config.json` of Stable Diffusion 1.5 and 2.1-base. `nano` is built from the very same
classes, small enough to ship and to test with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from glesam_runtime.errors import InputError

LATENT_CHANNELS = 256
"""Channels of z_L: what replicated-channel expansion widens the U-Net's four to."""

LORA_TARGETS = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "proj_in",
    "proj_out",
    "ff.net.0.proj",
    "ff.net.2",
    "conv1",
    "conv2",
    "conv_shortcut",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
    "conv_in",
    "conv_out",
]
"""Module name endings that the released training code adapts."""


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
        builtin: the packed checkpoint inside this package, used when no weights are given; None
            for all but nano.
        patch: side of a patch in pixels.
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

    @property
    def latent_size(self) -> int:
        """Side of the image embedding, in patches."""
        return self.image_size // self.patch


@dataclass(frozen=True)
class UNetPreset:
    """One Stable Diffusion U-Net, by the configuration diffusers builds it from (4 channels)."""

    name: str
    config: Mapping[str, Any] = field(repr=False)

    @property
    def text_dim(self) -> int:
        """D of the text embedding c, [1, 77, D]."""
        return int(self.config["cross_attention_dim"])


def _sd_config(**differences: Any) -> Mapping[str, Any]:
    """What SD 1.x and 2.x share, and what differs."""
    shared = {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (320, 640, 1280, 1280),
        "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        "layers_per_block": 2,
    }
    return MappingProxyType(shared | differences)


SAM_PRESETS: Mapping[str, SamPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            SamPreset("nano", 256, 128, 6, 4, (1, 3, 5), 8, 256, "nano", "nano.safetensors"),
            SamPreset("sam_vit_b", 1024, 768, 12, 12, (2, 5, 8, 11), 14, 2048, "sd21"),
            SamPreset("sam_vit_l", 1024, 1024, 24, 16, (5, 11, 17, 23), 14, 2048, "sd21"),
            SamPreset("sam_vit_h", 1024, 1280, 32, 16, (7, 15, 23, 31), 14, 2048, "sd21"),
        )
    }
)

UNET_PRESETS: Mapping[str, UNetPreset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            UNetPreset(
                "nano",
                _sd_config(
                    sample_size=16,
                    block_out_channels=(32, 64),
                    down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
                    layers_per_block=1,
                    cross_attention_dim=64,
                    attention_head_dim=4,
                    norm_num_groups=8,
                    use_linear_projection=True,
                ),
            ),
            UNetPreset("sd15", _sd_config(cross_attention_dim=768, attention_head_dim=8)),
            UNetPreset(
                "sd21",
                _sd_config(
                    cross_attention_dim=1024,
                    attention_head_dim=(5, 10, 20, 20),
                    use_linear_projection=True,
                ),
            ),
        )
    }
)


def sam_preset(name: str) -> SamPreset:
    """The SAM of that name.

    Raises:
        InputError: no such preset.
    """
    if name not in SAM_PRESETS:
        raise InputError(f"--preset {name}: unknown; choose one of {', '.join(SAM_PRESETS)}")
    return SAM_PRESETS[name]


def unet_preset(name: str) -> UNetPreset:
    """The U-Net of that name.

    Raises:
        InputError: no such preset.
    """
    if name not in UNET_PRESETS:
        raise InputError(f"--unet {name}: unknown; choose one of {', '.join(UNET_PRESETS)}")
    return UNET_PRESETS[name]
