"""Looks up presets, and lists the U-Net architectures as data.

The architectures of SAM are in the folders of their families. The U-Nets' are the
`unet/config.json` of Stable Diffusion 1.5 and 2.1-base, and `nano`, built from the same classes and
small enough to ship and to test with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from glesam_export import families
from glesam_export.families import Preset
from glesam_runtime.errors import InputError

LORA_TARGETS = [
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    *("time_emb_proj", "conv_in", "conv_out"),
]
"""Module name endings that the released training code adapts."""


@dataclass(frozen=True)
class UNetPreset:
    """One Stable Diffusion U-Net.

    Attributes:
        name: what `--unet` takes.
        config: diffusers' configuration of the 4-channel U-Net.
    """

    name: str
    config: Mapping[str, Any] = field(repr=False)

    @property
    def text_dim(self) -> int:
        """Return D of the text embedding c, [1, 77, D]."""
        return int(self.config["cross_attention_dim"])


def _sd_config(**differences: Any) -> Mapping[str, Any]:
    """Return the configuration that SD 1.x and 2.x share, with some differences."""
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
    """Return the SAM preset of that name, of any family.

    Raises:
        InputError: no such preset.
    """
    known = families.presets()
    if name not in known:
        raise InputError(f"--preset {name}: unknown; choose one of {', '.join(known)}")
    return known[name]


def unet_preset(name: str) -> UNetPreset:
    """Return the U-Net preset of that name.

    Raises:
        InputError: no such preset.
    """
    if name not in UNET_PRESETS:
        raise InputError(f"--unet {name}: unknown; choose one of {', '.join(UNET_PRESETS)}")
    return UNET_PRESETS[name]
