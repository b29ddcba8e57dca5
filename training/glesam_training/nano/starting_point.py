"""Make the checkpoint that nano's Algorithm 1 starts from: trained parts and fitted adapters.

The adapters of the U-Net's head and tail are fitted in closed form first. Adapters that start with
B = 0 stay on a plateau: through CRE the head passes on four sums of 64 channels each, which say
little about what a latent lacks, and the gradient that would change this comes back through four
outputs, repeated 64 times each. Here both ends start at the best linear map of their rank
(reduced-rank regression; Izenman 1975), and Algorithm 1 continues from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.checkpoints import write
from glesam_export.checkpoints.separate_files import FileCheckpoint, WeightFiles
from glesam_export.enhancer.reference import ADAPTER, Enhancer
from glesam_export.families import Preset
from glesam_export.families.sam.presets import SAM_PRESETS
from glesam_export.presets import unet_preset
from glesam_training.latents import StoredLatents
from glesam_training.train import Job, new_adapters, stored_latents

Pairs = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Returns batches of z_L and z_H, [N, 256, s, s] float32 each, the same ones at every call."""

NANO: Preset = SAM_PRESETS["nano"]

LEAD = 10.0
"""Strength of the head's fitted output, relative to the base's own signal."""

RIDGE = 1e-3
"""Added to the inputs' second moments, as a share of their mean."""

KERNEL = 3
"""Side of the convolutions in head and tail."""


def fit_ends(enhancer: Enhancer, pairs: Pairs, seed: int) -> None:
    """Fit the adapters of `conv_in` and `conv_out`, in place.

    The head learns to pass on the linear combinations of a neighbourhood of z_L that best predict
    what z_L lacks of z_H. The tail then learns, from what reaches it through the whole U-Net, the
    noise that Eq. 4 must subtract to arrive at z_H.

    Args:
        enhancer: in float32 on the CPU, in evaluation mode. Its other adapters still have no
            effect, and the head's rank is at most its number of channels.
        pairs: latents to fit to.
        seed: decides how the combinations are spread over the head's channels.

    Raises:
        ValueError: z_L lacks nothing that could be learned.
    """
    head, tail = enhancer.unet.conv_in, enhancer.unet.conv_out
    with torch.no_grad():
        _fit_head(enhancer, head, pairs, seed)
        _fit_tail(enhancer, tail, pairs)


def reduced_rank(xx: Tensor, xy: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the linear map of a given rank that predicts y from x with the least squared error.

    It is the unrestricted least squares map, followed by a projection on the leading directions of
    its predictions.

    Args:
        xx: second moments of x, [P, P].
        xy: second moments of x and y, [P, Q].
        rank: r, at most Q.

    Returns:
        V [P, r] and W [Q, r], so that x V W^T predicts y, and the mean square of each column of
        x V, [r], in falling order.

    Raises:
        ValueError: x predicts nothing of y.
    """
    ridge = RIDGE * xx.diagonal().mean() * torch.eye(len(xx), dtype=xx.dtype)
    full = torch.linalg.solve(xx + ridge, xy)
    squares, directions = torch.linalg.eigh(full.T @ xx @ full)
    if not squares[-1] > 0:
        raise ValueError("these pairs do not differ, so there is nothing to learn")
    kept = directions.flip(1)[:, :rank]
    # The sign of a direction depends on the matrix library: make its largest entry positive.
    kept = kept * kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign()
    # Directions that predict nothing have squares of rounding errors, which may be negative.
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
    # GroupNorm scales channels in groups, so each group gets some of every combination.
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
        """Return what reaches the tail, and what its adapter must add (Eq. 4 solved for eps)."""
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
    """Return second moments of x's neighbourhoods [P, P], and of these and y [P, Q], float64."""
    xx = xy = torch.zeros((), dtype=torch.float64)
    count = 0
    for low, clear in pairs():
        x, y = regression(low, clear)
        around = functional.unfold(x, KERNEL, padding=KERNEL // 2).transpose(1, 2).flatten(0, 1)
        wanted = y.permute(0, 2, 3, 1).flatten(0, 2)
        # Sums within a batch are float32 for speed, sums over batches float64.
        xx, xy = xx + (around.T @ around).double(), xy + (around.T @ wanted).double()
        count += len(around)
    return xx / count, xy / count


def _put(layer: LoraLayer, combined: Tensor, spread: Tensor) -> None:
    """Set an adapter to compute `spread combined^T x`, with equal norms of A and B in each rank.

    With A of norm 1 and B of norm 70, a learning rate that hardly changes B ruins A in a few steps.

    Args:
        layer: the layer of a 3x3 convolution.
        combined: [in * 9, r].
        spread: [out, r].
    """
    a, b = _factors(layer)
    spread = spread / layer.scaling[ADAPTER]
    balance = (spread.norm(dim=0) / combined.norm(dim=0)).sqrt()
    a.copy_((combined * balance).T.reshape(a.shape))
    b.copy_((spread / balance).reshape(b.shape))


def _factors(layer: LoraLayer) -> tuple[Tensor, Tensor]:
    """Return A [r, in, 3, 3] and B [out, r, 1, 1] of a layer."""
    return layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight


UNET = "nano"
TIMESTEP = 1
"""T of the released scripts. Minutes of training cannot undo 1 / sqrt(abar_T) = 14.6 at T = 999."""

GAMMA = 0.125
"""CRE sums 64 channels of SAM's unit variance into each of the base's four channels. That gives
eight times the standard deviation the base was trained with; gamma undoes it (FDA, Sec. 3.3).
SAM's latents end in a norm. Those of a SAM 2 do not, so gamma is divided by their deviation."""

MEASURED = 64
"""Pictures from whose latents the deviation is computed."""

RANK = 16
END_RANK = 32
"""Rank of the adapters of head and tail: as many as the base has channels there, so that only the
U-Net's width limits what the enhancer sees and changes of a latent."""

BATCH = 32
"""Pairs of latents per batch, while head and tail are fitted."""


def starting_checkpoint(
    folder: Path,
    sam: Path,
    base: tuple[Path, Path],
    seed: int,
    learn: Job,
    fit_pairs: int,
    preset: Preset = NANO,
) -> FileCheckpoint:
    """Return a GleSAM of trained parts, whose adapters have no effect except in head and tail.

    Args:
        folder: for the adapters' file.
        sam: SAM's .pth.
        base: the diffusers folder and the text embedding.
        seed: seed of the adapters.
        learn: the job of Algorithm 1, with stored latents.
        fit_pairs: pairs of latents to fit to, in whole batches of 32.
        preset: the SAM of `sam`.

    Returns:
        The checkpoint. Its adapters are read from the folder if they are there.

    Raises:
        InputError: the number of degraded versions is not fixed.
        ValueError: the job stores no latents, or all its degraded versions are clear.
    """
    new, lora = (folder / f"{name}-{seed}.safetensors" for name in ("adapters", "fitted"))

    def checkpoint_with(adapters: Path, gamma: float) -> FileCheckpoint:
        files = WeightFiles(sam, base[0], adapters, base[1])
        return FileCheckpoint(files, preset, unet_preset(UNET), gamma, TIMESTEP)

    gamma = GAMMA
    if not lora.is_file():
        ends = {"conv_in": END_RANK, "conv_out": END_RANK}
        write.save_tensors(new, new_adapters(unet_preset(UNET), RANK, seed, ends))
    if preset.name != NANO.name:
        stored = stored_latents(checkpoint_with(new, GAMMA), learn, high_res=True)
        gamma = gamma_of(stored)
    if not lora.is_file():
        unfitted = checkpoint_with(new, gamma)
        enhancer, latents = unfitted.enhancer(), stored_latents(unfitted, learn, high_res=True)
        fit_ends(enhancer, pairs_of(latents, fit_pairs, seed), seed)
        write.save_lora(lora, enhancer.unet)
    return checkpoint_with(lora, gamma)


def gamma_of(latents: StoredLatents) -> float:
    """Return the gamma that gives clear latents the deviation of nano's, to three digits."""
    some = np.arange(min(MEASURED, len(latents.dataset)))
    _, clear = latents.latents(some, np.zeros_like(some))
    return float(f"{GAMMA / float(clear.astype(np.float64).std()):.3g}")


def pairs_of(latents: StoredLatents, count: int, seed: int) -> Pairs:
    """Return batches of stored latents, drawn from all pictures and versions."""
    rng = np.random.default_rng((seed, 5))
    versions = latents.options.variants
    assert versions is not None  # `store_latents` requires a number
    drawn = [rng.integers(0, len(latents.dataset), BATCH) for _ in range(-(-count // BATCH))]
    places = [(index, rng.integers(0, versions, BATCH)) for index in drawn]

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for index, variant in places:
            low, clear = (torch.from_numpy(z).float() for z in latents.latents(index, variant))
            yield low, clear

    return batches
