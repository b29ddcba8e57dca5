"""SAM 2's Hiera encoder with its feature pyramid, written for export.

Against the sam2 package's ImageEncoder four things are different in form and none in value:

- the position embedding, stretched and tiled over the image, is a constant;
- the scale 1 / sqrt(d) is in the query projection, from where it passes through the max-pooling;
- each high-resolution output is one 1x1 convolution, the pyramid's and the decoder's conv_s0 or
  conv_s1 multiplied out;
- `no_mem_embed` is in the bias of the convolution whose output it is added to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.graphs.attention import (
    Attend,
    join_heads,
    scale_rows,
    split_heads,
    unflatten,
)
from glesam_export.graphs.base import Graph
from glesam_export.reference_sam2 import Encoded, Sam2Encoder


class PooledAttention(nn.Module):
    """Multi-head self-attention over a square of tokens, whose queries may be max-pooled.

    Args:
        reference: the block's MultiScaleAttention; its layers are taken over, its q rows scaled.
        side: side of the square, in tokens.
    """

    def __init__(self, reference: Any, side: int) -> None:
        super().__init__()
        self.heads, self.width, self.side = reference.num_heads, reference.dim_out, side
        self.qkv, self.proj, self.pool = reference.qkv, reference.proj, reference.q_pool
        self.attend = Attend()
        scale_rows(self.qkv, (self.width // self.heads) ** -0.5, slice(0, self.width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, side * side, C] -> [N, L, D]; L is a quarter of side * side where q is pooled."""
        q, k, v = self.qkv(x).split(self.width, dim=-1)
        if self.pool is not None:
            grid = unflatten(q.transpose(1, 2), 2, self.side, self.side)
            q = self.pool(grid).flatten(2).transpose(1, 2)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        out: Tensor = self.proj(join_heads(self.attend(q, k, v)))
        return out


class HieraBlock(nn.Module):
    """One Hiera block on [N, side, side, C]; the first of a stage halves the side.

    Args:
        reference: the MultiScaleBlock.
        side: of its input, in tokens.
    """

    def __init__(self, reference: Any, side: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = reference.norm1, reference.norm2, reference.mlp
        self.widen = reference.proj if reference.dim != reference.dim_out else None
        self.pool = reference.pool
        stride = reference.q_stride[0] if reference.q_stride else 1
        self.side, self.out_side = side, side // stride
        self.window = reference.window_size or side
        self.out_window = self.window // stride
        self.attention = PooledAttention(reference.attn, self.window)

    def forward(self, x: Tensor) -> Tensor:
        """[N, side, side, C] -> [N, out_side, out_side, D]."""
        normed = self.norm1(x)
        if self.widen is not None:
            x = self.widen(normed)
            if self.pool is not None:
                x = self.pool(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self._attend_in_windows(normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend_in_windows(self, x: Tensor) -> Tensor:
        """Cut into windows (zero padded at right and bottom), attend, put together, crop."""
        window, out_window = self.window, self.out_window
        across = -(-self.side // window)
        if across == 1 and window == self.side:
            return unflatten(self.attention(x.flatten(1, 2)), 1, self.out_side, self.out_side)
        missing = across * window - self.side
        if missing:
            x = functional.pad(x, (0, 0, 0, missing, 0, missing))
        x = unflatten(unflatten(x, 2, across, window), 1, across, window)
        x = self.attention(x.transpose(2, 3).flatten(3, 4).flatten(0, 2))
        x = unflatten(unflatten(x, 1, out_window, out_window), 0, -1, across, across)
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return x[:, : self.out_side, : self.out_side] if missing else x


class Sam2EncoderGraph(Graph):
    """`image` [N, 3, S, S] -> the contract's three features, float32 at both ends.

    Args:
        reference: SAM 2's encoder; used up, since its layers are taken over and rescaled.
        image_size: S.
    """

    positions: Tensor

    def __init__(self, reference: Sam2Encoder, image_size: int) -> None:
        super().__init__()
        trunk, neck = reference.image_encoder.trunk, reference.image_encoder.neck
        side = image_size // 4
        self.patch_embed = trunk.patch_embed.proj
        positions = trunk._get_pos_embed((side, side)).detach()
        self.register_buffer("positions", positions)  # [1, S/4, S/4, C]
        blocks = []
        for block in trunk.blocks:
            blocks.append(HieraBlock(block, side))
            side = blocks[-1].out_side
        self.blocks = nn.ModuleList(blocks)
        self.stage_ends = tuple(trunk.stage_ends)
        # The pyramid's convolutions run from the lowest resolution up.
        self.coarse, self.latent, to_eighth, to_quarter = (level.conv for level in neck.convs)
        self.latent.bias.data += reference.no_mem_embed.data.flatten()
        self.eighth = _multiplied_out(to_eighth, reference.conv_s1)
        self.quarter = _multiplied_out(to_quarter, reference.conv_s0)

    def forward(self, image: Tensor) -> Encoded:
        """Encode one batch of normalised images."""
        x = self.patch_embed(image.to(self.dtype)).permute(0, 2, 3, 1) + self.positions
        stages = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_ends:
                stages.append(x.permute(0, 3, 1, 2))
        quarter, eighth, sixteenth, coarse = stages
        above = functional.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        z_l = self.latent(sixteenth) + above
        return z_l.float(), self.quarter(quarter).float(), self.eighth(eighth).float()


@torch.no_grad()
def _multiplied_out(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """The one 1x1 convolution that two in a row are, worked out in float64."""
    w1, w2 = first.weight.double().flatten(1), second.weight.double().flatten(1)
    assert first.bias is not None
    assert second.bias is not None
    both = nn.Conv2d(first.in_channels, second.out_channels, 1).to(first.weight.dtype)
    both.weight.copy_((w2 @ w1)[:, :, None, None])
    assert both.bias is not None
    both.bias.copy_(w2 @ first.bias.double() + second.bias.double())
    return both.requires_grad_(False)
