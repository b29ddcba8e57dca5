"""Adapters of the U-Net's head and tail, fitted in closed form before Algorithm 1.

Adapters that begin with B = 0 rest on a plateau: through CRE the head hands on no more than four
sums of 64 channels, which say little of what a latent lacks, and all that tells the head to hand on
more comes back through four outputs, each 64 times. Here both begin at the best linear map of their
rank instead (reduced-rank regression; Izenman 1975), and Algorithm 1 goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.enhancer.reference import ADAPTER, Enhancer

Pairs = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Gives batches of z_L and z_H, [N, 256, s, s] float32 each, the same ones at every call."""

LEAD = 10.0
"""How many times as strong as the base's own signal what the head is fitted to hand on is."""

RIDGE = 1e-3
"""Added to the inputs' second moments, as a share of their mean."""

KERNEL = 3
"""Side of head's and tail's convolution."""


def fit_ends(enhancer: Enhancer, pairs: Pairs, seed: int) -> None:
    """Fit the adapters of `conv_in` and `conv_out`, in place.

    The head learns to hand on those combinations of a neighbourhood of z_L which best say,
    linearly, what z_L lacks of z_H. The tail then learns, from what reaches it through the whole
    U-Net, the noise that Eq. 4 must subtract to end at z_H.

    Args:
        enhancer: in float32 on the CPU, in evaluation mode; its other adapters change nothing yet,
            and the head's are of a rank no larger than its channels.
        pairs: latents to fit to.
        seed: of how the combinations are spread over the head's channels.

    Raises:
        ValueError: z_L lacks nothing that could be learned.
    """
    head, tail = enhancer.unet.conv_in, enhancer.unet.conv_out
    with torch.no_grad():
        _fit_head(enhancer, head, pairs, seed)
        _fit_tail(enhancer, tail, pairs)


def reduced_rank(xx: Tensor, xy: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """The linear map of a rank that predicts y from x with the least squared error.

    It is the unrestricted least squares map followed by a projection on the leading directions of
    what that predicts.

    Args:
        xx: second moments of x, [P, P].
        xy: of x and y, [P, Q].
        rank: r, at most Q.

    Returns:
        V [P, r] and W [Q, r], so that y is predicted by x V W^T, and the mean square of each column
        of x V, [r], falling.

    Raises:
        ValueError: x predicts nothing of y.
    """
    ridge = RIDGE * xx.diagonal().mean() * torch.eye(len(xx), dtype=xx.dtype)
    full = torch.linalg.solve(xx + ridge, xy)
    squares, directions = torch.linalg.eigh(full.T @ xx @ full)
    if not squares[-1] > 0:
        raise ValueError("nothing is to be learned from these pairs: they do not differ")
    kept = directions.flip(1)[:, :rank]
    # A direction's sign is the matrix library's whim: its largest entry shall be positive.
    kept = kept * kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign()
    # Directions in which nothing is predicted have squares of rounding errors, negative ones too.
    least = torch.finfo(torch.float32).eps * squares[-1]
    return full @ kept, kept, squares.flip(0)[:rank].clamp_min(float(least))


def _fit_head(enhancer: Enhancer, head: LoraLayer, pairs: Pairs, seed: int) -> None:
    a, b = _factors(head)
    rank, channels = len(a), len(b)
    b.zero_()
    gamma = enhancer.gamma
    xx, xy = _moments(pairs, lambda low, clear: (gamma * low, clear - low))
    combined, _, squares = reduced_rank(xx, xy, rank)
    first, _ = next(iter(pairs()))
    strength = LEAD * float(head(gamma * first).std())
    # GroupNorm scales channels in groups: each shall hold some of every combination.
    generator = torch.Generator().manual_seed(seed)
    spread = torch.randn(channels, rank, generator=generator, dtype=torch.float64)
    spread = torch.linalg.qr(spread).Q * strength * (channels / rank) ** 0.5
    _put(head, combined / squares.sqrt(), spread)


def _fit_tail(enhancer: Enhancer, tail: LoraLayer, pairs: Pairs) -> None:
    a, b = _factors(tail)
    b.zero_()
    gamma, alpha_bar = enhancer.gamma, enhancer.alpha_bar
    reached: list[Tensor] = []

    def lacking(low: Tensor, clear: Tensor) -> tuple[Tensor, Tensor]:
        """What reaches the tail, and what its adapter is to add (Eq. 4 solved for eps)."""
        eps = enhancer.eps(low)
        wanted = gamma * (low - alpha_bar**0.5 * clear) / (1 - alpha_bar) ** 0.5
        return reached.pop(), wanted - eps

    assert isinstance(tail, nn.Module)
    hook = tail.register_forward_pre_hook(lambda _, inputs: reached.append(inputs[0]))
    try:
        xx, xy = _moments(pairs, lacking)
    finally:
        hook.remove()
    combined, directions, _ = reduced_rank(xx, xy, len(a))
    _put(tail, combined, directions)


def _moments(
    pairs: Pairs, regression: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Second moments of x's neighbourhoods [P, P], and of these and y [P, Q], float64."""
    xx = xy = torch.zeros((), dtype=torch.float64)
    count = 0
    for low, clear in pairs():
        x, y = regression(low, clear)
        around = functional.unfold(x, KERNEL, padding=KERNEL // 2).transpose(1, 2).flatten(0, 1)
        wanted = y.permute(0, 2, 3, 1).flatten(0, 2)
        # Sums of a batch in float32, for its speed; those of all batches in float64.
        xx, xy = xx + (around.T @ around).double(), xy + (around.T @ wanted).double()
        count += len(around)
    return xx / count, xy / count


def _put(layer: LoraLayer, combined: Tensor, spread: Tensor) -> None:
    """Make an adapter compute `spread combined^T x`, with A and B of one norm in each rank.

    With A of norm 1 and B of norm 70, a learning rate that B hardly feels undoes A in a few steps.

    Args:
        layer: a 3x3 convolution's.
        combined: [in * 9, r].
        spread: [out, r].
    """
    a, b = _factors(layer)
    spread = spread / layer.scaling[ADAPTER]
    balance = (spread.norm(dim=0) / combined.norm(dim=0)).sqrt()
    a.copy_((combined * balance).T.reshape(a.shape))
    b.copy_((spread / balance).reshape(b.shape))


def _factors(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    """A [r, in, 3, 3] and B [out, r, 1, 1] of a layer."""
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
