"""State the distributions of the authors' training loader, from the parameters of its options file.

Nothing here imports the sampler, so this is an oracle for it. Every distribution is a cumulative
distribution function on the real line.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import numpy.typing as npt

Cdf = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


def uniform(low: float, high: float) -> Cdf:
    return lambda x: np.clip((x - low) / (high - low), 0, 1)


def points(shares: Mapping[float, float]) -> Cdf:
    """Return the distribution that has the given probability at each value."""
    values = np.array(sorted(shares))
    sums = np.cumsum([shares[value] for value in values])
    return lambda x: np.concatenate([[0.0], sums])[np.searchsorted(values, x, side="right")]


def mixture(*parts: tuple[float, Cdf]) -> Cdf:
    return lambda x: np.sum([share * cdf(x) for share, cdf in parts], axis=0)


def scale(up: float, down: float, low: float, high: float) -> Cdf:
    kept = 1 - up - down
    return mixture((up, uniform(1, high)), (down, uniform(low, 1)), (kept, points({1: 1})))


def equal(values: Iterable[float]) -> Cdf:
    listed = list(values)
    return points({value: listed.count(value) / len(listed) for value in listed})


SIZES = equal(range(7, 22, 2))
BEFORE_13, FROM_13 = uniform(math.pi / 3, math.pi), uniform(math.pi / 5, math.pi)
QUALITY = equal(range(30, 95))

DISTRIBUTIONS: Mapping[str, Cdf] = {
    "kernel size": SIZES,
    "sigma, pixels": uniform(0.2, 3),
    "angle": uniform(-math.pi, math.pi),
    "beta, generalized": mixture((0.5, uniform(0.5, 1)), (0.5, uniform(1, 4))),
    "beta, plateau": mixture((0.5, points({1: 1})), (0.5, uniform(1, 2))),
    "cutoff of sinc": mixture((3 / 8, BEFORE_13), (5 / 8, FROM_13)),
    "scale, first pass": scale(0.1, 0.2, 0.5, 1.5),
    "scale, second pass": scale(0.3, 0.4, 0.3, 1.2),
    "Gaussian noise, first pass": uniform(1, 30),
    "Gaussian noise, second pass": uniform(1, 25),
    "Poisson noise, first pass": uniform(0.05, 3),
    "Poisson noise, second pass": uniform(0.05, 2.5),
    "JPEG quality, first pass": QUALITY,
    "JPEG quality, second pass": QUALITY,
    "rate": equal((1, 2, 3, 3, 4, 4, 4, 4)),
    "last sinc, cutoff or 0": mixture((0.2, points({0: 1})), (0.8, BEFORE_13)),
}
"""The parameters that are numbers, by name."""

SHARES: Mapping[str, float] = {
    "sinc": 0.1,
    "gaussian": 0.9 * 0.45,
    "gaussian, anisotropic": 0.9 * 0.25,
    "generalized": 0.9 * 0.12,
    "generalized, anisotropic": 0.9 * 0.03,
    "plateau": 0.9 * 0.12,
    "plateau, anisotropic": 0.9 * 0.03,
    "second blur": 0.8,
    "Poisson": 0.5,
    "gray": 0.4,
    "JPEG last": 0.5,
}
"""The probabilities of the parameters that are no numbers, by name."""


def largest_gap(values: Iterable[float], cdf: Cdf) -> float:
    """Return the Kolmogorov-Smirnov statistic of values against a distribution.

    The gap is taken on both sides of every value, so it also holds where the distribution jumps.
    """
    found, counts = np.unique(np.fromiter(values, np.float64), return_counts=True)
    after = np.cumsum(counts) / counts.sum()
    before = np.concatenate([[0.0], after[:-1]])
    below = np.nextafter(found, -np.inf)
    return float(max(np.abs(after - cdf(found)).max(), np.abs(before - cdf(below)).max()))
