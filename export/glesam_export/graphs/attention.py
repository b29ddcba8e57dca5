"""Scaled dot-product attention spelled out, so that its softmax can be a float32 island."""

from __future__ import annotations

from torch import Tensor, nn


class Weights(nn.Module):
    """softmax(q k^T): a module of its own so that `precision` can reach it, or its softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Q [..., L, d], k [..., M, d] -> [..., L, M]."""
        weights: Tensor = self.softmax(q @ k.transpose(-2, -1))
        return weights


class Attend(nn.Module):
    """softmax(q k^T) v.

    Queries come scaled already: in float16 an unscaled product overflows where a scaled one does
    not, and a scale folded into the projection costs nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights = Weights()

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Q [..., L, d], k [..., M, d], v [..., M, e] -> [..., L, e]."""
        attended: Tensor = self.weights(q, k) @ v
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
