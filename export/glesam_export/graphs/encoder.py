"""SAM's ViT image encoder, written for export.

Against segment_anything's ImageEncoderViT one thing is different in form and none in value: the
decomposed relative positions enter the one product q k^T. With R_h and R_w the relative position
embeddings of a query's row and column, and e_i a one-hot row or column of the key,

    q.k / sqrt(d) + q.R_h[i_k] + q.R_w[j_k] = [q / sqrt(d), q R_h^T, q R_w^T] . [k, e_i, e_j]

so that no bias of [heads, H W, H W] is ever added (for ViT-B's global blocks 805 MB).
"""

from __future__ import annotations

from typing import Any

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.graphs.attention import Attend, scale_rows, unflatten
from glesam_export.graphs.base import Graph


class RelativeAttention(nn.Module):
    """Multi-head self-attention over a square of side x side tokens with relative positions.

    Args:
        reference: the block's attention; its qkv is taken over, and its q rows are scaled by
            1 / sqrt(d).
        side: side of the window, or of the whole image for a global block.
    """

    row_positions: Tensor
    column_positions: Tensor
    key_positions: Tensor

    def __init__(self, reference: Any, side: int) -> None:
        super().__init__()
        self.heads, self.side = int(reference.num_heads), side
        self.qkv, self.proj = reference.qkv, reference.proj
        self.attend = Attend()
        width = self.qkv.in_features
        scale = (width // self.heads) ** -0.5
        scale_rows(self.qkv, scale, slice(0, width))
        # The scaled q meets the positions too, so they are divided by what it was multiplied by.
        self.register_buffer("row_positions", _positions(reference.rel_pos_h, side, scale))
        self.register_buffer("column_positions", _positions(reference.rel_pos_w, side, scale))
        eye = torch.eye(side, dtype=self.qkv.weight.dtype)
        one_hot_row = eye.repeat_interleave(side, dim=0)
        one_hot_column = eye.repeat(side, 1)
        self.register_buffer("key_positions", torch.cat([one_hot_row, one_hot_column], dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """[N, side * side, C] -> [N, side * side, C]."""
        side, tokens = self.side, self.side**2
        qkv = unflatten(self.qkv(x), -1, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]  # each [N, heads, tokens, d]
        grid = unflatten(q, 2, side, side)  # [N, heads, row, column, d]
        along_rows = grid @ self.row_positions
        along_columns = (grid.transpose(2, 3) @ self.column_positions).transpose(2, 3)
        positions = torch.cat([along_rows, along_columns], dim=-1).flatten(2, 3)
        keys = self.key_positions.expand(k.shape[0], self.heads, tokens, 2 * side)
        attended = self.attend(torch.cat([q, positions], -1), torch.cat([k, keys], -1), v)
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out


class EncoderBlock(nn.Module):
    """One ViT block on [N, H, W, C], attending in windows or over the whole image."""

    def __init__(self, reference: Any, grid: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = reference.norm1, reference.norm2, reference.mlp
        self.grid = grid
        self.window = reference.window_size or grid
        self.attention = RelativeAttention(reference.attn, self.window)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] -> [N, H, W, C]."""
        x = x + self._attend_in_windows(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _attend_in_windows(self, x: Tensor) -> Tensor:
        """Cut into windows (zero padded at right and bottom), attend, put together, crop."""
        grid, window, channels = self.grid, self.window, x.shape[-1]
        if window == grid:
            whole: Tensor = self.attention(x.flatten(1, 2))
            return unflatten(whole, 1, grid, grid)
        across = -(-grid // window)
        missing = across * window - grid
        if missing:
            x = functional.pad(x, (0, 0, 0, missing, 0, missing))
        x = unflatten(unflatten(x, 2, across, window), 1, across, window)
        x = x.transpose(2, 3).reshape(-1, window * window, channels)
        x = self.attention(x)
        x = x.reshape(-1, across, across, window, window, channels).transpose(2, 3)
        x = x.flatten(3, 4).flatten(1, 2)
        return x[:, :grid, :grid] if missing else x


class EncoderGraph(Graph):
    """`image` [N, 3, S, S] -> `image_embeddings` [N, 256, S/16, S/16], float32 at both ends.

    Args:
        reference: SAM's encoder; used up, since its layers are taken over and rescaled.
    """

    def __init__(self, reference: ImageEncoderViT) -> None:
        super().__init__()
        self.patch_embed = reference.patch_embed.proj
        self.pos_embed = reference.pos_embed
        grid = reference.pos_embed.shape[1]
        self.blocks = nn.ModuleList(EncoderBlock(block, grid) for block in reference.blocks)
        self.neck = reference.neck

    def forward(self, image: Tensor) -> Tensor:
        """Encode one batch of normalised, padded images."""
        x = self.patch_embed(image.to(self.dtype)).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        embeddings: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return embeddings.float()


def _positions(table: Tensor, side: int, scale: float) -> Tensor:
    """Relative position embeddings as a batched right factor: [side, d, side], over `scale`."""
    gathered = get_rel_pos(side, side, table.data.double()) / scale
    factors: Tensor = gathered.transpose(1, 2).to(table.dtype).contiguous()
    return factors
