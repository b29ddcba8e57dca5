"""Builds SAM's ViT image encoder as a graph for export.

It computes the same values as segment_anything's ImageEncoderViT. Three things are different:

- windows are split by `graphs.split_windows`, so no layer works on padding;
- a global block computes a few heads at a time (the scores of all heads of ViT-B take 805 MB);
- relative positions are the biases of `graphs.Softmax`. Rows and columns are added up before they
  are added to the scores: TensorRT and OpenVINO fuse this form with the products around it.
"""

from __future__ import annotations

from typing import Any

from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn

from glesam_export.graphs import (
    Attend,
    Graph,
    fold_biases,
    join_windows,
    scale_rows,
    split_windows,
    unflatten,
)


class RelativeAttention(nn.Module):
    """Multi-head self-attention with relative positions, in windows or over the whole image.

    Args:
        reference: the block's attention. This module takes over its layers, scales its q rows by
            1 / sqrt(d) and folds its biases.
        grid: side of the image in tokens.
        window: side of a window in tokens; equal to `grid` for a global block.
    """

    row_positions: Tensor
    column_positions: Tensor

    def __init__(self, reference: Any, grid: int, window: int) -> None:
        super().__init__()
        self.heads, self.grid, self.window = int(reference.num_heads), grid, window
        self.qkv, self.proj = reference.qkv, reference.proj
        self.attend = Attend(in_groups=True)
        width = self.qkv.in_features
        scale = (width // self.heads) ** -0.5
        fold_biases(self.qkv, self.proj)
        scale_rows(self.qkv, scale, slice(0, width))
        # The scaled q is multiplied with the positions too, so they are divided by the same factor.
        self.register_buffer("row_positions", _positions(reference.rel_pos_h, window, scale))
        self.register_buffer("column_positions", _positions(reference.rel_pos_w, window, scale))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, grid * grid, C] to the same shape."""
        q, k, v = split_windows(self.qkv(x), self.grid, self.window, self.heads)
        square = unflatten(q, 2, self.window, self.window)  # [N, heads, row, column, d]
        rows = (square @ self.row_positions).flatten(2, 3)
        columns = (square.transpose(2, 3) @ self.column_positions).transpose(2, 3).flatten(2, 3)
        attended = self.attend(q, k, v, rows, columns)
        out: Tensor = self.proj(join_windows(attended, self.grid, self.window))
        return out


class EncoderBlock(nn.Module):
    """One ViT block; its attention works in windows or over the whole image."""

    def __init__(self, reference: Any, grid: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = reference.norm1, reference.norm2, reference.mlp
        self.attention = RelativeAttention(reference.attn, grid, reference.window_size or grid)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, grid * grid, C] to the same shape."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class EncoderGraph(Graph):
    """Maps `image` [N, 3, S, S] to `image_embeddings` [N, 256, S/16, S/16], both float32.

    Args:
        reference: SAM's ImageEncoderViT. It is used up: its layers are taken over and rescaled.
    """

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.patch_embed = reference.patch_embed.proj
        self.grid = grid = reference.pos_embed.shape[1]
        self.pos_embed = nn.Parameter(reference.pos_embed.data.flatten(1, 2))
        self.blocks = nn.ModuleList(EncoderBlock(block, grid) for block in reference.blocks)
        self.neck = reference.neck

    def forward(self, image: Tensor) -> Tensor:
        """Encode one batch of normalised, padded images."""
        x = self.patch_embed(image.to(self.dtype)).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        embeddings: Tensor = self.neck(unflatten(x.transpose(1, 2), 2, self.grid, self.grid))
        return embeddings.float()


def _positions(table: Tensor, side: int, scale: float) -> Tensor:
    """Return relative positions over `scale` as a batched right factor [side, d, side]."""
    gathered = get_rel_pos(side, side, table.data.double()) / scale
    factors: Tensor = gathered.transpose(1, 2).to(table.dtype).contiguous()
    return factors
