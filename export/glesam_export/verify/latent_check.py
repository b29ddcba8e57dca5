"""Checks enhanced latents for the signs of a wrong gamma or timestep.

A LoRA file does not store its gamma and T, and a wrong pair raises no error: reference and bundle
agree, but the output is garbage. Latents of a trained enhancer have known properties. Their spread
is that of the encoder's latents, and they are nearer to the clear image's latent than the degraded
image's latent is (paper, Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from glesam_export.checkpoints import Checkpoint
from glesam_export.checkpoints.stable_diffusion import alpha_bar
from glesam_export.verify.cases import Case
from glesam_export.verify.reference_outputs import Outputs, Step, known

TIMESTEPS = (1, 999)
GAMMAS = (1.0, 3.0, 5.0)
"""Values of the paper and the released scripts, and gamma 1 for no adaption."""

WIDEST = 2.0
"""Maximum factor between the spreads of z_H and of the clear latent, in either direction."""
SHIFT = 0.5
"""Maximum distance between the means of z_H and of the clear latent, in standard deviations."""
FARTHER = 1.25
"""Maximum factor by which enhancing may increase the distance to the clear latent."""


@dataclass(frozen=True)
class LatentFigures:
    """Figures of one image's latents at one level, over all 256 channels.

    Attributes:
        image: name of the case.
        level: clear or LQ-1..3.
        mean: means of z_L, of z_H, and of the clear image's z_L.
        spread: standard deviations of the same three.
        before: distance of z_L from the clear image's z_L, relative to the norm of the latter.
        after: the same distance of z_H.
    """

    image: str
    level: str
    mean: tuple[float, float, float]
    spread: tuple[float, float, float]
    before: float
    after: float


def judge(cases: Sequence[Case], reference: Sequence[Outputs]) -> list[LatentFigures]:
    """Compute the figures of the reference's latents for each case."""
    z_h = [known(out.z_h) for out in reference]
    return _figures(cases, [known(out.z_l) for out in reference], z_h)


def doubts(figures: Sequence[LatentFigures]) -> list[str]:
    """List signs of a wrong gamma or timestep, one line each."""
    found = []
    for figure in figures:
        name = f"{figure.image} {figure.level}"
        ratio = figure.spread[1] / max(figure.spread[2], 1e-12)
        if not 1 / WIDEST < ratio < WIDEST:
            found.append(f"{name}: spread is {ratio:.3g} times the clear latent's")
        shift = abs(figure.mean[1] - figure.mean[2]) / max(figure.spread[2], 1e-12)
        if not shift < SHIFT:
            found.append(f"{name}: mean is {shift:.3g} standard deviations off the clear latent's")
    before, after = _distances(figures)
    if not after < FARTHER * before:
        found.append(
            f"degraded images: {after:.3g} from the clear latent after enhancing, "
            f"{before:.3g} before"
        )
    return found


@torch.no_grad()
def fitting_pair(
    checkpoint: Checkpoint, cases: Sequence[Case], reference: Sequence[Outputs]
) -> tuple[int, float] | None:
    """Find the pair (T, gamma) of those in use that fits the weights best; None if none fits.

    Args:
        checkpoint: the weights. Its own pair is not tried.
        cases: the verification cases.
        reference: the outputs for the cases, with z_L.
    """
    enhancer = checkpoint.enhancer()
    z_l = [known(out.z_l) for out in reference]
    best: tuple[float, tuple[int, float]] | None = None
    for timestep in TIMESTEPS:
        for gamma in GAMMAS:
            if (timestep, gamma) == (checkpoint.timestep, checkpoint.gamma):
                continue
            enhancer.gamma, enhancer.timestep = gamma, timestep
            enhancer.alpha_bar = alpha_bar(timestep, checkpoint.schedule, "the schedule")
            z_h = [enhancer(torch.from_numpy(z)).numpy() for z in z_l]
            figures = _figures(cases, z_l, z_h)
            # Squared and including the clear images, like the training loss: too small a gamma
            # changes too much, which can help degraded images but harms clear ones.
            error = sum(figure.after**2 for figure in figures)
            if not doubts(figures) and (best is None or error < best[0]):
                best = error, (timestep, gamma)
    return best[1] if best else None


def warning(
    checkpoint: Checkpoint, cases: Sequence[Case], reference: Sequence[Outputs], step: Step
) -> str | None:
    """Return in one line what is wrong with a trained enhancer's latents, and which pair fits.

    This is a warning, not an error: weights of other authors may behave differently on purpose.

    Returns:
        None if nothing is wrong, and for random weights.
    """
    if not checkpoint.trained:
        return None
    found = doubts(judge(cases, reference))
    if not found:
        return None
    with step("other timesteps and gammas"):
        pair = fitting_pair(checkpoint, cases, reference)
    remedy = (
        f"these weights fit --gamma {pair[1]:g} --timestep {pair[0]}"
        if pair
        else "no other pair in use fits: do LoRA, SAM and base belong together?"
    )
    given = f"gamma {checkpoint.gamma:g} and timestep {checkpoint.timestep}"
    more = f" and {len(found) - 2} more" if len(found) > 2 else ""
    return f"enhanced latents are off with {given}: {'; '.join(found[:2])}{more}; {remedy}"


def _figures(
    cases: Sequence[Case],
    z_l: Sequence[NDArray[np.float32]],
    z_h: Sequence[NDArray[np.float64]],
) -> list[LatentFigures]:
    """Compare every case with the clear case of its image."""
    clear = {c.name: z.astype(np.float64) for c, z in zip(cases, z_l, strict=True) if _is_clear(c)}
    figures = []
    for case, low, enhanced in zip(cases, z_l, z_h, strict=True):
        wanted = clear[case.name]
        norm = max(float(np.linalg.norm(wanted)), 1e-12)
        three = (low.astype(np.float64), enhanced, wanted)
        mean_l, mean_h, mean_clear = (float(z.mean()) for z in three)
        std_l, std_h, std_clear = (float(z.std()) for z in three)
        figures.append(
            LatentFigures(
                case.name,
                case.level,
                (mean_l, mean_h, mean_clear),
                (std_l, std_h, std_clear),
                float(np.linalg.norm(three[0] - wanted)) / norm,
                float(np.linalg.norm(enhanced - wanted)) / norm,
            )
        )
    return figures


def _distances(figures: Sequence[LatentFigures]) -> tuple[float, float]:
    """Average the distance to the clear latent over degraded images, before and after enhancing."""
    degraded = [figure for figure in figures if figure.before > 0]
    if not degraded:
        return 0.0, 0.0
    before = sum(figure.before for figure in degraded) / len(degraded)
    return before, sum(figure.after for figure in degraded) / len(degraded)


def _is_clear(case: Case) -> bool:
    return case.level == "clear"
