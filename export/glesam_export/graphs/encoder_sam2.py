"""SAM 2's Hiera encoder with its feature pyramid, written for export.

Against the sam2 package's ImageEncoder five things are different in form and none in value:

- the position embedding, stretched and tiled over the image, is a constant;
- the scale 1 / sqrt(d) is in the query projection, from where it passes through the max-pooling;
- windows are cut as in `windows`, without work for padding;
- each high-resolution output is one 1x1 convolution, the pyramid's and the decoder's conv_s0 or
  conv_s1 multiplied out;
- `no_mem_embed` is in the bias of the convolution whose output it is added to.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.graphs.attention import Attend, fold_biases, scale_rows, unflatten
from glesam_export.graphs.base import Graph
from glesam_export.graphs.windows import put_together, take_apart
from glesam_export.reference_sam2 import Encoded, Sam2Encoder


class PooledAttention(nn.Module):
    """Multi-head self-attention in windows of a square of tokens; queries may be max-pooled.

    Args:
        reference: the block's MultiScaleAttention; its layers are taken over, its q rows scaled,
            its biases folded.
        side: of the square, in tokens.
        window: side of a window; `side` is one window.
        stride: of the pooling of queries; 1 is none.
    """

    def __init__(self, reference: Any, side: int, window: int, stride: int) -> None:
        super().__init__()
        self.heads, width = reference.num_heads, reference.dim_out
        self.qkv, self.proj, self.pool = reference.qkv, reference.proj, reference.q_pool
        # Queries of padding are zeros here and biases in sam2: none may be pooled with another.
        assert side % window % stride == 0, "a pooled query would be of padding in part"
        self.side, self.window, self.stride = side, window, stride
        self.attend = Attend(in_groups=True)
        fold_biases(self.qkv, self.proj)
        scale_rows(self.qkv, (width // self.heads) ** -0.5, slice(0, width))

    def forward(self, x: Tensor) -> Tensor:
        """[N, side * side, C] -> [N, L, D]; L is a quarter of side * side where q is pooled."""
        q, k, v = take_apart(self.qkv(x), self.side, self.window, self.heads)
        if self.pool is not None:
            square = unflatten(q.transpose(2, 3).flatten(0, 1), 2, self.window, self.window)
            q = unflatten(self.pool(square).flatten(2), 0, -1, self.heads).transpose(2, 3)
        attended = self.attend(q, k, v)
        side, window = self.side // self.stride, self.window // self.stride
        out: Tensor = self.proj(put_together(attended, side, window))
        return out


class HieraBlock(nn.Module):
    """One Hiera block on [N, side * side, C]; the first of a stage halves the side.

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
        window = reference.window_size or side
        self.attention = PooledAttention(reference.attn, side, window, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[N, side * side, C] -> [N, out_side * out_side, D]."""
        normed = self.norm1(x)
        if self.widen is not None:
            x = self.widen(normed)
            if self.pool is not None:
                x = self.pool(as_image(x, self.side)).flatten(2).transpose(1, 2)
        x = x + self.attention(normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


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
        self.register_buffer("positions", positions.flatten(1, 2))  # [1, S/4 * S/4, C]
        blocks = []
        self.stage_sides: dict[int, int] = {}
        for index, block in enumerate(trunk.blocks):
            blocks.append(HieraBlock(block, side))
            side = blocks[-1].out_side
            if index in trunk.stage_ends:
                self.stage_sides[index] = side
        self.blocks = nn.ModuleList(blocks)
        # The pyramid's convolutions run from the lowest resolution up.
        self.coarse, self.latent, to_eighth, to_quarter = (level.conv for level in neck.convs)
        self.latent.bias.data += reference.no_mem_embed.data.flatten()
        self.eighth = _multiplied_out(to_eighth, reference.conv_s1)
        self.quarter = _multiplied_out(to_quarter, reference.conv_s0)

    def forward(self, image: Tensor) -> Encoded:
        """Encode one batch of normalised images."""
        x = self.patch_embed(image.to(self.dtype)).flatten(2).transpose(1, 2) + self.positions
        stages = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.stage_sides:
                stages.append(as_image(x, self.stage_sides[index]))
        quarter, eighth, sixteenth, coarse = stages
        above = functional.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        z_l = self.latent(sixteenth) + above
        return z_l.float(), self.quarter(quarter).float(), self.eighth(eighth).float()


def as_image(x: Tensor, side: int) -> Tensor:
    """[N, side * side, C] -> [N, C, side, side]."""
    return unflatten(x.transpose(1, 2), 2, side, side)


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
