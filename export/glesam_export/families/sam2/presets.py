"""Lists the SAM 2 architectures as data: those of the sam2 package's configurations, and `nano2`.

`nano2` is built from the same classes and is small enough to test with. Its weights ship.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from glesam_export.families.family import InputName
from glesam_runtime.manifest import Stability

SAM2_STABILITY = Stability(offset=0.05, threshold=0.98)
"""When the single mask is replaced by the best of three, as build_sam2 sets it."""


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
        builtin: file name of the weights inside this package, used when no weights are given; None
            if none ship.
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
    family: ClassVar[str] = "sam2"
    input: ClassVar[InputName] = "sam"

    @property
    def latent_size(self) -> int:
        """Return the side of the image embedding."""
        return self.image_size // 16


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
                builtin="nano2.safetensors",
            ),
            *(Sam2Preset(f"sam2_hiera_{size}", release="2", **s) for size, s in _HIERA.items()),
            *(Sam2Preset(f"sam2.1_hiera_{size}", release="2.1", **s) for size, s in _HIERA.items()),
        )
    }
)
