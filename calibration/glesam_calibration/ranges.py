"""Choose how much of a tensor's range to keep; larger values are cut off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from glesam_calibration.qdq import EightBit
from glesam_calibration.statistics import BINS, Statistics
from glesam_runtime.errors import InputError

Method = Literal["mse", "min-max", "percentile", "entropy"]
DEFAULT: Mapping[EightBit, Method] = {"int8": "mse", "fp8": "min-max"}
"""The relative precision of eight-bit floats does not depend on the range, so fp8 keeps all of
it."""
PERCENTILE = 99.99
"""Default of the percentile method: percent of all magnitudes."""

_LEVELS = 128
"""Number of magnitudes that eight bits with a sign can represent."""
_STEP = 16
"""Distance of two compared ranges, bins."""
_LEAST_KEPT = 99.9
"""Minimum percentage of all magnitudes that the entropy method keeps. Some tensors hold the same
few numbers most of the time, such as the embedding of an absent mask prompt. The lowest divergence
then cuts off everything else."""


def kept_range(statistics: Statistics, method: Method, percentile: float = PERCENTILE) -> float:
    """Return the largest magnitude to keep, at most the largest seen.

    Args:
        statistics: statistics of the tensor.
        method: mse minimises the squared error of int8, min-max keeps everything, percentile keeps
            a share of all values, and entropy changes the distribution least (Kullback-Leibler),
            like TensorRT's calibrator.
        percentile: for the method percentile, above 50 and at most 100.

    Raises:
        InputError: the method is unknown, or the percentile is out of range.
    """
    if not 50 < percentile <= 100:
        raise InputError(f"percentile {percentile:g}: must lie above 50 and be at most 100")
    if method not in METHODS:
        raise InputError(f"method {method!r}: must be one of {', '.join(METHODS)}")
    if statistics.exponent is None:
        return statistics.largest
    kept = METHODS[method](statistics, percentile)
    return float(min(kept, statistics.largest))


def _mse(statistics: Statistics, _: float) -> float:
    """Return the range with the least squared error from rounding and cutting off."""
    used = int(np.flatnonzero(statistics.counts)[-1]) + 1
    magnitudes, counts = np.arange(used) + 0.5, statistics.counts[:used]
    stops = [*range(_LEVELS, used, _STEP), max(used, _LEVELS)]

    def error(stop: int) -> float:
        step = stop / (_LEVELS - 1)
        rounded = np.rint(magnitudes / step).clip(max=_LEVELS - 1) * step
        return float(counts @ np.square(magnitudes - rounded))

    return float(min(stops, key=error) * statistics.reach / BINS)


def _everything(statistics: Statistics, _: float) -> float:
    return statistics.largest


def _percentile(statistics: Statistics, percentile: float) -> float:
    """Return the upper edge of the bin that reaches the percentile."""
    return _bins_for(statistics, percentile) * statistics.reach / BINS


def _bins_for(statistics: Statistics, percentile: float) -> int:
    """Return the number of bins that hold a share of all magnitudes."""
    cumulated = np.cumsum(statistics.counts)
    place = int(np.searchsorted(cumulated, cumulated[-1] * (percentile / 100)))
    return min(place, BINS - 1) + 1


def _entropy(statistics: Statistics, _: float) -> float:
    """Return the range whose histogram of `_LEVELS` steps diverges least from the finer one."""
    counts = statistics.counts.astype(np.float64)
    # Zeros are exact in every range; those of a mask or a ReLU would dominate the result.
    counts[0] = min(counts[0], counts[1])
    used = int(np.flatnonzero(statistics.counts)[-1]) + 1
    first = max(_LEVELS, _bins_for(statistics, _LEAST_KEPT))
    stops = [*range(first, used, _STEP), max(used, _LEVELS)]
    divergences = [_divergence(counts, stop) for stop in stops]
    return float(stops[int(np.argmin(divergences))] * statistics.reach / BINS)


def _divergence(counts: NDArray[np.float64], stop: int) -> float:
    """Return KL(fine || coarse) if values from bin `stop` on are moved to the last bin."""
    fine = counts[:stop].copy()
    edges = np.minimum(np.arange(_LEVELS + 1) * stop // _LEVELS, stop)
    starts, widths = edges[:-1], np.diff(edges)
    filled = fine > 0
    # A level spreads its count over those of its bins that are not empty. Values that are cut off
    # count in the last bin of the fine histogram but in no level, which increases the divergence.
    sums = np.add.reduceat(fine, starts)
    occupied = np.add.reduceat(filled.astype(np.float64), starts)
    level = sums / np.maximum(occupied, 1)
    coarse = np.where(filled, np.repeat(level, widths), 0)
    fine[-1] += counts[stop:].sum()
    if fine.sum() == 0 or coarse.sum() == 0:
        return float("inf")
    p, q = fine / fine.sum(), coarse / coarse.sum()
    seen = p > 0
    return float(np.sum(p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))))


METHODS: Mapping[str, Callable[[Statistics, float], float]] = {
    "mse": _mse,
    "min-max": _everything,
    "percentile": _percentile,
    "entropy": _entropy,
}
