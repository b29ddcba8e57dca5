"""A square of tokens as heads of attention, over the whole of it or in windows, and back.

Windows that reach over the right or bottom edge are filled up with zeros after the projection to
queries, keys and values, and cropped before the one that follows the attention: no layer works on
padding. `attention.fold_biases` makes that exact. Windows and heads are taken apart in one
transposition, and on either side tokens are a sequence and no image, which keeps an engine from
reordering them for convolutions that do not come.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from glesam_export.graphs.attention import unflatten


def take_apart(x: Tensor, side: int, window: int, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of every window, each [N * windows, heads, window * window, d].

    Args:
        x: [N, side * side, 3 * heads * d], queries, keys and values one after the other.
        side: of the square, in tokens.
        window: side of a window; `side` is one window.
        heads: of the attention.
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


def put_together(x: Tensor, side: int, window: int) -> Tensor:
    """[N * windows, heads, window * window, d] -> [N, side * side, heads * d], padding cropped."""
    if window == side:
        return x.transpose(1, 2).flatten(2)
    across = -(-side // window)
    x = x.reshape(-1, across, across, x.shape[1], window, window, x.shape[-1])
    x = x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    return x[:, :side, :side].flatten(1, 2)
