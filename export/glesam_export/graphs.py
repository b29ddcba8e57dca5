"""Provides what the graphs of all stages share: their base class, attention and windows.

Scaled dot-product attention is spelled out, so that its softmax can be a float32 island.

`split_windows` and `join_windows` turn a square of tokens into heads of attention and back, over
the whole square or in windows. Windows that reach over the right or bottom edge are padded with
zeros after the projection to queries, keys and values, and cropped before the projection that
follows the attention. So no layer works on padding, and `fold_biases` makes this exact. Windows and
heads are split in one transposition. Outside of it tokens are a sequence, not an image, which keeps
an engine from reordering them for convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SCORES_AT_ONCE = 2**24
"""How many scores are computed at once: those of one head of 4096 tokens. More are not faster on
any engine measured. In engines that store the scores they are most of the peak memory
(docs/performance.md)."""


class Graph(nn.Module):
    """A stage written for export: float32 inputs and outputs, `dtype` inside."""

    dtype: torch.dtype = torch.float32
    """Type of the values inside; `precision.cast_graph` sets it."""
    variadic: bool = False
    """Whether `forward` takes its inputs as `*inputs`."""


class Softmax(nn.Softmax):
    """Softmax of scores; biases for the key's row and column may be added first."""

    def __init__(self) -> None:
        super().__init__(dim=-1)

    def forward(
        self, scores: Tensor, rows: Tensor | None = None, columns: Tensor | None = None
    ) -> Tensor:
        """Weigh scores [..., L, M] with rows [..., L, r] and columns [..., L, c], M = r * c."""
        if rows is not None and columns is not None:
            scores = scores + (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(-2)
        weights: Tensor = super().forward(scores)
        return weights


class Weights(nn.Module):
    """Computes softmax(q k^T). It is a module so that `precision` can make it an island."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = Softmax()

    def forward(self, q: Tensor, k: Tensor, *positions: Tensor) -> Tensor:
        """Compute [..., L, M] from q [..., L, d], k [..., M, d] and the biases of `Softmax`."""
        weights: Tensor = self.softmax(q @ k.transpose(-2, -1), *positions)
        return weights


class Attend(nn.Module):
    """Computes softmax(q k^T) v, for all heads at once or for a few at a time.

    Queries must be scaled before: in float16 an unscaled product can overflow, and a scale folded
    into the projection costs nothing.

    Args:
        in_groups: compute a few heads at a time if they have many tokens. The number of tokens
            must be static.
    """

    def __init__(self, in_groups: bool = False) -> None:
        super().__init__()
        self.weights, self.in_groups = Weights(), in_groups

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *positions: Tensor) -> Tensor:
        """Compute [N, h, L, d] from q [N, h, L, d], k and v [N, h, M, d] and `Softmax`'s biases."""
        parts, heads = (q, k, v, *positions), q.shape[1]
        step = max(1, SCORES_AT_ONCE // (q.shape[2] * k.shape[2])) if self.in_groups else heads
        if step >= heads:
            return self._attend(*parts)
        groups = [
            self._attend(*(part[:, first : first + step] for part in parts))
            for first in range(0, heads, step)
        ]
        return torch.cat(groups, dim=1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, *positions: Tensor) -> Tensor:
        attended: Tensor = self.weights(q, k, *positions) @ v
        return attended


def unflatten(x: Tensor, axis: int, *sizes: int) -> Tensor:
    """Split one axis into several; one of `sizes` may be -1."""
    split: Tensor = x.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
    return split


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape [N, L, heads * d] to [N, heads, L, d]."""
    return unflatten(x, -1, heads, x.shape[-1] // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Reshape [N, heads, L, d] to [N, L, heads * d]."""
    return x.transpose(1, 2).flatten(2)


def scale_rows(layer: nn.Linear, factor: float, rows: slice = slice(None)) -> None:
    """Multiply some outputs of a Linear by `factor`, in place, computed in float64."""
    layer.weight.data[rows] = (factor * layer.weight.data[rows].double()).to(layer.weight.dtype)
    if layer.bias is not None:
        layer.bias.data[rows] = (factor * layer.bias.data[rows].double()).to(layer.bias.dtype)


def fold_biases(qkv: nn.Linear, proj: nn.Linear) -> None:
    """Remove the biases of keys and values, in place, computed in float64, exactly.

    A key's bias adds the same number to all scores of a query, and the softmax cancels it. The
    weights add up to 1, so a value's bias moves into the projection. After this a token that pads
    a window has a key and a value of zero, like padding added by an engine.

    Args:
        qkv: projects to queries, keys and values, in this order, with a bias.
        proj: the projection that follows the attention, with a bias.
    """
    queries, values = qkv.out_features // 3, slice(2 * qkv.out_features // 3, None)
    passed = proj.weight.data.double() @ qkv.bias.data[values].double()
    proj.bias.data = (proj.bias.data.double() + passed).to(proj.bias.dtype)
    qkv.bias.data[queries:] = 0


def split_windows(x: Tensor, side: int, window: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys, values of all windows: [N * windows, heads, window * window, d] each.

    Args:
        x: [N, side * side, 3 * heads * d], first queries, then keys, then values.
        side: side of the square, in tokens.
        window: side of a window; equal to `side` for the whole square.
        heads: number of heads.
    """
    x = unflatten(x, -1, 3, heads, -1)
    if window == side:
        x = x.permute(2, 0, 3, 1, 4)
        return x[0], x[1], x[2]
    across = -(-side // window)
    missing = across * window - side
    x = unflatten(x, 1, side, side)
    if missing:
        x = functional.pad(x, (0, 0, 0, 0, 0, 0, 0, missing, 0, missing))
    x = unflatten(unflatten(x, 2, across, window), 1, across, window)
    # [N, window row, row, window column, column, 3, heads, d]
    x = x.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 3).flatten(3, 4)
    return x[0], x[1], x[2]


def join_windows(x: Tensor, side: int, window: int) -> Tensor:
    """Undo `split_windows`: [N * windows, heads, window * window, d] to [N, side * side, C]."""
    if window == side:
        return x.transpose(1, 2).flatten(2)
    across = -(-side // window)
    x = x.reshape(-1, across, across, x.shape[1], window, window, x.shape[-1])
    x = x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    return x[:, :side, :side].flatten(1, 2)
