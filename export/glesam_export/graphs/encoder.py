"""SAM's ViT image encoder, written for export.

Against segment_anything's ImageEncoderViT three things are different in form and none in value:

- tokens that pad a window are made after the projection to queries, keys and values, and dropped
  before the one that follows the attention (`attention.fold_biases` makes that exact), and windows
  and heads are taken apart in one transposition; in between, tokens are a sequence and no image,
  which keeps an engine from reordering them for convolutions that do not come;
- heads of a global block attend a few at a time (the scores of all of ViT-B's are 805 MB);
- relative positions are the biases of `attention.Softmax`, added up before the scores are met: the
  form that TensorRT and OpenVINO fuse with the products on either side.
"""

from __future__ import annotations

from typing import Any

from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.graphs.attention import Attend, fold_biases, scale_rows, unflatten
from glesam_export.graphs.base import Graph


class RelativeAttention(nn.Module):
    """Multi-head self-attention with relative positions, in windows or over the whole square.

    Args:
        reference: the block's attention; its layers are taken over, its q rows are scaled by
            1 / sqrt(d), its biases folded.
        grid: side of the square of tokens.
        window: side of a window, `grid` for a global block.
    """

    row_positions: Tensor
    column_positions: Tensor

    def __init__(self, reference: Any, grid: int, window: int) -> None:
        super().__init__()
        self.heads, self.grid, self.window = int(reference.num_heads), grid, window
        self.across = -(-grid // window)
        self.qkv, self.proj = reference.qkv, reference.proj
        self.attend = Attend(in_groups=True)
        width = self.qkv.in_features
        scale = (width // self.heads) ** -0.5
        fold_biases(self.qkv, self.proj)
        scale_rows(self.qkv, scale, slice(0, width))
        # The scaled q meets the positions too, so they are divided by what it was multiplied by.
        self.register_buffer("row_positions", _positions(reference.rel_pos_h, window, scale))
        self.register_buffer("column_positions", _positions(reference.rel_pos_w, window, scale))

    def forward(self, x: Tensor) -> Tensor:
        """[N, grid * grid, C] -> [N, grid * grid, C]."""
        q, k, v = self._take_apart(self.qkv(x))
        square = unflatten(q, 2, self.window, self.window)  # [N, heads, row, column, d]
        rows = (square @ self.row_positions).flatten(2, 3)
        columns = (square.transpose(2, 3) @ self.column_positions).transpose(2, 3).flatten(2, 3)
        attended = self.attend(q, k, v, rows, columns)
        out: Tensor = self.proj(self._put_together(attended))
        return out

    def _take_apart(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, grid * grid, 3 C] -> queries, keys, values [N * windows, heads, tokens, d]."""
        across, window, grid = self.across, self.window, self.grid
        x = unflatten(x, -1, 3, self.heads, -1)
        if window == grid:
            x = x.permute(2, 0, 3, 1, 4)
            return x[0], x[1], x[2]
        x = unflatten(x, 1, grid, grid)
        missing = across * window - grid
        if missing:
            x = functional.pad(x, (0, 0, 0, 0, 0, 0, 0, missing, 0, missing))
        x = unflatten(unflatten(x, 2, across, window), 1, across, window)
        # [N, window row, row, window column, column, 3, heads, d]
        x = x.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3).flatten(3, 4)
        return x[0], x[1], x[2]

    def _put_together(self, x: Tensor) -> Tensor:
        """[N * windows, heads, tokens, d] -> [N, grid * grid, C], padding cropped."""
        across, window, grid = self.across, self.window, self.grid
        if window == grid:
            return x.transpose(1, 2).flatten(2)
        x = x.reshape(-1, across, across, self.heads, window, window, x.shape[-1])
        x = x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return x[:, :grid, :grid].flatten(1, 2)


class EncoderBlock(nn.Module):
    """One ViT block on [N, grid * grid, C], attending in windows or over the whole image."""

    def __init__(self, reference: Any, grid: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.mlp = reference.norm1, reference.norm2, reference.mlp
        self.attention = RelativeAttention(reference.attn, grid, reference.window_size or grid)

    def forward(self, x: Tensor) -> Tensor:
        """[N, grid * grid, C] -> [N, grid * grid, C]."""
        x = x + self.attention(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class EncoderGraph(Graph):
    """`image` [N, 3, S, S] -> `image_embeddings` [N, 256, S/16, S/16], float32 at both ends.

    Args:
        reference: SAM's encoder; used up, since its layers are taken over and rescaled.
    """

    def __init__(self, reference: ImageEncoderViT) -> None:
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
    """Relative position embeddings as a batched right factor: [side, d, side], over `scale`."""
    gathered = get_rel_pos(side, side, table.data.double()) / scale
    factors: Tensor = gathered.transpose(1, 2).to(table.dtype).contiguous()
    return factors
