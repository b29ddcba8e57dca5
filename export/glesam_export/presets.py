"""The architectures this exporter knows, as data.

SAM's are those of Meta's released checkpoints (segment_anything.build_sam), SAM 2's those of the
sam2 package's configurations; the U-Nets' are the `unet/config.json` of Stable Diffusion 1.5 and
2.1-base. `nano` is built from the very same classes, small enough to ship and to test with, and
`nano2` is its like for SAM 2, without weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from glesam_runtime.errors import InputError
from glesam_runtime.manifest import Family

LATENT_CHANNELS = 256
"""Channels of z_L: what replicated-channel expansion widens the U-Net's four to."""

LORA_TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    *("time_emb_proj", "conv_in", "conv_out"),
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
    family: ClassVar[Family] = "sam"

    @property
    def latent_size(self) -> int:
        """Side of the image embedding, in patches."""
        return self.image_size // self.patch


@dataclass(frozen=True)
class Sam2Preset:
    """One SAM 2: a Hiera encoder with its feature pyramid, and a mask decoder.

    Attributes:
        name: what `--preset` takes.
        embed_dim: width of Hiera's first stage; each later one is twice as wide.
        heads: attention heads of the first stage; each later one has twice as many.
        blocks: blocks of each of the four stages.
        global_blocks: indices of the blocks that attend over the whole image.
        windows: side of the attention windows of each stage, in its tokens.
        background: side of the position embedding that is stretched over the image.
        release: "2" or "2.1"; they differ in what only video needs.
        image_size: S, side of the encoder's square input in pixels.
        default_unet: the U-Net when `--unet` is not given.
        decoder_mlp: hidden width of the two-way transformer's MLP.
        builtin: None, no SAM 2 ships with this package.
    """

    name: str
    embed_dim: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int]
    background: int
    release: Literal["2", "2.1"]
    image_size: int = 1024
    default_unet: str = "sd21"
    decoder_mlp: int = 2048
    builtin: str | None = None
    family: ClassVar[Family] = "sam2"

    @property
    def latent_size(self) -> int:
        """Side of the image embedding, in pixels of its own."""
        return self.image_size // 16


Preset = SamPreset | Sam2Preset


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

_NARROW = {"windows": (8, 4, 14, 7), "background": 7}
_HIERA: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "t": _NARROW
        | {"embed_dim": 96, "heads": 1, "blocks": (1, 2, 7, 2), "global_blocks": (5, 7, 9)},
        "s": _NARROW
        | {"embed_dim": 96, "heads": 1, "blocks": (1, 2, 11, 2), "global_blocks": (7, 10, 13)},
        "b+": _NARROW
        | {"embed_dim": 112, "heads": 2, "blocks": (2, 3, 16, 3), "global_blocks": (12, 16, 20)}
        | {"background": 14},
        "l": _NARROW
        | {"embed_dim": 144, "heads": 2, "blocks": (2, 6, 36, 4), "global_blocks": (23, 33, 43)}
        | {"windows": (8, 4, 16, 8)},
    }
)
"""The released sizes; releases 2 and 2.1 have the same."""

SAM2_PRESETS: Mapping[str, Sam2Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Sam2Preset(
                name="nano2",
                embed_dim=32,
                heads=1,
                blocks=(1, 2, 3, 2),
                global_blocks=(4,),
                windows=(8, 4, 6, 3),
                background=7,
                release="2.1",
                image_size=256,
                default_unet="nano",
                decoder_mlp=256,
            ),
            *(Sam2Preset(f"sam2_hiera_{size}", release="2", **s) for size, s in _HIERA.items()),
            *(Sam2Preset(f"sam2.1_hiera_{size}", release="2.1", **s) for size, s in _HIERA.items()),
        )
    }
)

PRESETS: Mapping[str, Preset] = MappingProxyType({**SAM_PRESETS, **SAM2_PRESETS})

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


def sam_preset(name: str) -> Preset:
    """The SAM or SAM 2 of that name.

    Raises:
        InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"--preset {name}: unknown; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def unet_preset(name: str) -> UNetPreset:
    """The U-Net of that name.

    Raises:
        InputError: no such preset.
    """
    if name not in UNET_PRESETS:
        raise InputError(f"--unet {name}: unknown; choose one of {', '.join(UNET_PRESETS)}")
    return UNET_PRESETS[name]
