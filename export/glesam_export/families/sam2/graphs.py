"""Builds SAM 2's encoder and decoder as graphs for export.

The encoder computes the same values as the sam2 package's ImageEncoder. Five things are different:

- the position embedding, stretched and tiled over the image, is a constant;
- the scale 1 / sqrt(d) is in the query projection; max-pooling commutes with it;
- windows are split by `graphs.split_windows`, so no layer works on padding;
- each high-resolution output is one 1x1 convolution: the product of the pyramid's and of the
  decoder's conv_s0 or conv_s1;
- `no_mem_embed` is in the bias of the convolution whose output it is added to.

The decoder is SAM's graph with two additions: a token that predicts whether the object is there,
which the other tokens attend to, and the high-resolution features, added during upscaling.
"""

from __future__ import annotations

from typing import Any

import torch
from sam2.modeling.sam2_utils import LayerNorm2d as Sam2LayerNorm2d
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.families.sam.decoder import DecoderGraph
from glesam_export.families.sam2.reference import Encoded
from glesam_export.graphs import (
    Attend,
    Graph,
    fold_biases,
    join_windows,
    scale_rows,
    split_windows,
    unflatten,
)


class PooledAttention(nn.Module):
    """Multi-head self-attention in windows; queries may be max-pooled.

    Args:
        reference: the block's MultiScaleAttention. This module takes over its layers, scales its q
            rows and folds its biases.
        side: side of the image in tokens.
        window: side of a window in tokens; equal to `side` for the whole image.
        stride: stride of the query pooling; 1 is no pooling.
    """

    def __init__(self, reference: Any, side: int, window: int, stride: int) -> None:
        super().__init__()
        self.heads, width = reference.num_heads, reference.dim_out
        self.qkv, self.proj, self.pool = reference.qkv, reference.proj, reference.q_pool
        # Padding queries are zeros here, but biases in sam2, so no pool may mix them with others.
        assert side % window % stride == 0, "a query pool would reach over the edge of the image"
        self.side, self.window, self.stride = side, window, stride
        self.attend = Attend(in_groups=True)
        fold_biases(self.qkv, self.proj)
        scale_rows(self.qkv, (width // self.heads) ** -0.5, slice(0, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, side * side, C] to [N, L, D]; L is side * side, or a quarter if q is pooled."""
        q, k, v = split_windows(self.qkv(x), self.side, self.window, self.heads)
        if self.pool is not None:
            square = unflatten(q.transpose(2, 3).flatten(0, 1), 2, self.window, self.window)
            q = unflatten(self.pool(square).flatten(2), 0, -1, self.heads).transpose(2, 3)
        attended = self.attend(q, k, v)
        side, window = self.side // self.stride, self.window // self.stride
        out: Tensor = self.proj(join_windows(attended, side, window))
        return out


class HieraBlock(nn.Module):
    """One Hiera block. The first block of a stage halves the side.

    Args:
        reference: the MultiScaleBlock.
        side: side of its input in tokens.
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
        """Map [N, side * side, C] to [N, out_side * out_side, D]."""
        normed = self.norm1(x)
        if self.widen is not None:
            x = self.widen(normed)
            if self.pool is not None:
                x = self.pool(as_image(x, self.side)).flatten(2).transpose(1, 2)
        x = x + self.attention(normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Sam2EncoderGraph(Graph):
    """Maps `image` [N, 3, S, S] to the contract's three features, all float32.

    Args:
        reference: a Sam2Encoder. It is used up: its layers are taken over and rescaled.
        image_size: S.
    """

    positions: Tensor

    def __init__(self, reference: Any, image_size: int) -> None:
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
        self.eighth = _product(to_eighth, reference.conv_s1)
        self.quarter = _product(to_quarter, reference.conv_s0)

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


class Sam2DecoderGraph(DecoderGraph):
    """Computes four masks and scores for each of B prompts of P points on one image.

    Args:
        prompt_encoder: SAM 2's. This graph takes over its layers.
        mask_decoder: SAM 2's. This graph takes over its layers.
    """

    def __init__(self, prompt_encoder: Any, mask_decoder: Any) -> None:
        for sequence in (prompt_encoder.mask_downscaling, mask_decoder.output_upscaling):
            _use_sams_norms(sequence)
        # Attention ignores the order of tokens. The object token comes last, so that SAM's tokens
        # keep their indices.
        super().__init__(prompt_encoder, mask_decoder, [mask_decoder.obj_score_token.weight.data])

    def forward(  # type: ignore[override]
        self,
        image_embeddings: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compute the contract's decoder outputs: logits [B, 4, S/4, S/4], predicted IoU [B, 4]."""
        tokens, image = self.attend(
            image_embeddings, point_coords, point_labels, mask_input, has_mask_input
        )
        to_eighth, norm, activation, to_quarter, last_activation = self.upscaling
        eighth = to_eighth(image) + high_res_feats_1.to(self.dtype)
        quarter = to_quarter(activation(norm(eighth))) + high_res_feats_0.to(self.dtype)
        return self.answer(tokens, last_activation(quarter))


def as_image(x: Tensor, side: int) -> Tensor:
    """Reshape [N, side * side, C] to [N, C, side, side]."""
    return unflatten(x.transpose(1, 2), 2, side, side)


@torch.no_grad()
def _product(first: nn.Conv2d, second: nn.Conv2d) -> nn.Conv2d:
    """Return one 1x1 convolution that equals two in a row, computed in float64."""
    w1, w2 = first.weight.double().flatten(1), second.weight.double().flatten(1)
    assert first.bias is not None
    assert second.bias is not None
    both = nn.Conv2d(first.in_channels, second.out_channels, 1).to(first.weight.dtype)
    both.weight.copy_((w2 @ w1)[:, :, None, None])
    assert both.bias is not None
    both.bias.copy_(w2 @ first.bias.double() + second.bias.double())
    return both.requires_grad_(False)


def _use_sams_norms(sequence: nn.Sequential) -> None:
    """Replace SAM 2's LayerNorm2d by SAM's, in place.

    Both compute the same values, but `precision` knows only SAM's as an island.
    """
    for index, module in enumerate(sequence):
        if isinstance(module, Sam2LayerNorm2d):
            norm = LayerNorm2d(len(module.weight), module.eps)
            norm.load_state_dict(module.state_dict())
            sequence[index] = norm.to(module.weight.dtype).requires_grad_(False)
