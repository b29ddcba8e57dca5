"""Scaled dot-product attention spelled out, so that its softmax can be a float32 island."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SCORES_AT_ONCE = 2**24
"""How many scores are made at once: those of one head of 4096 tokens. More are no faster on any
engine measured, and where an engine writes them out they are most of its peak
(docs/performance.md)."""


class Softmax(nn.Softmax):
    """Softmax of scores to which a bias for the key's row and one for its column may be added."""

    def __init__(self) -> None:
        super().__init__(dim=-1)

    def forward(
        self, scores: Tensor, rows: Tensor | None = None, columns: Tensor | None = None
    ) -> Tensor:
        """Scores [..., L, M] with rows [..., L, r] and columns [..., L, c], M = r * c."""
        if rows is not None and columns is not None:
            scores = scores + (rows.unsqueeze(-1) + columns.unsqueeze(-2)).flatten(-2)
        weights: Tensor = super().forward(scores)
        return weights


class Weights(nn.Module):
    """softmax(q k^T): a module of its own so that `precision` can reach it, or its softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = Softmax()

    def forward(self, q: Tensor, k: Tensor, *positions: Tensor) -> Tensor:
        """Q [..., L, d], k [..., M, d] and biases as of `Softmax` -> [..., L, M]."""
        weights: Tensor = self.softmax(q @ k.transpose(-2, -1), *positions)
        return weights


class Attend(nn.Module):
    """softmax(q k^T) v, of all heads or of a few after the others.

    Queries come scaled already: in float16 an unscaled product overflows where a scaled one does
    not, and a scale folded into the projection costs nothing.

    Args:
        in_groups: whether heads of many tokens attend a few at a time; their number must be fixed.
    """

    def __init__(self, in_groups: bool = False) -> None:
        super().__init__()
        self.weights, self.in_groups = Weights(), in_groups

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *positions: Tensor) -> Tensor:
        """Q [N, h, L, d], k and v [N, h, M, d] and biases as of `Softmax` -> [N, h, L, d]."""
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
    """[N, L, heads * d] -> [N, heads, L, d]."""
    return unflatten(x, -1, heads, x.shape[-1] // heads).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """[N, heads, L, d] -> [N, L, heads * d]."""
    return x.transpose(1, 2).flatten(2)


def scale_rows(layer: nn.Linear, factor: float, rows: slice = slice(None)) -> None:
    """Multiply some outputs of a Linear by `factor`, in place, in float64."""
    layer.weight.data[rows] = (factor * layer.weight.data[rows].double()).to(layer.weight.dtype)
    if layer.bias is not None:
        layer.bias.data[rows] = (factor * layer.bias.data[rows].double()).to(layer.bias.dtype)


def fold_biases(qkv: nn.Linear, proj: nn.Linear) -> None:
    """Leave a bias to the queries alone, in place, in float64; the attention's value is the same.

    A key's bias adds the same to all scores of a query, and the softmax takes it out again. Weights
    add up to 1, so a value's bias passes through to the projection. What this is for: a token that
    pads a window has a key and a value of zero then, as padding by an engine has.

    Args:
        qkv: projects to queries, keys and values, in this order, with a bias.
        proj: what follows the attention, with a bias.
    """
    queries, values = qkv.out_features // 3, slice(2 * qkv.out_features // 3, None)
    passed = proj.weight.data.double() @ qkv.bias.data[values].double()
    proj.bias.data = (proj.bias.data.double() + passed).to(proj.bias.dtype)
    qkv.bias.data[queries:] = 0
