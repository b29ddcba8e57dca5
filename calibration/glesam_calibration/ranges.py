"""How much of a tensor's range is kept: what lies beyond is cut off, so that the rest is finer."""

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
"""Floats of eight bits are as fine, relative to themselves, whatever is cut off above them."""
PERCENTILE = 99.99
"""Of all magnitudes; what a method named without a figure keeps."""

_LEVELS = 128
"""Magnitudes that eight bits with a sign tell apart."""
_STEP = 16
"""Bins between two ranges that are compared."""
_LEAST_KEPT = 99.9
"""Percent of all magnitudes that the entropy method keeps at least. A tensor may be the same few
numbers most of the time, as what a mask prompt becomes is where none is given, and the divergence
then asks to cut off everything else."""


def kept_range(statistics: Statistics, method: Method, percentile: float = PERCENTILE) -> float:
    """The largest magnitude that is kept, at most the largest seen.

    Args:
        statistics: of the tensor.
        method: mse keeps what int8 then rounds with the least squared error, min-max everything,
            percentile the given share of all values, entropy what changes the distribution least
            (Kullback-Leibler), as TensorRT's calibrator does.
        percentile: above 50, at most 100.

    Raises:
        InputError: no such method or percentile.
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
    """The range that costs least in squared error, of what is rounded and what is cut off."""
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
    """The upper edge of the bin in which the share is reached."""
    return _bins_for(statistics, percentile) * statistics.reach / BINS


def _bins_for(statistics: Statistics, percentile: float) -> int:
    """How many bins hold a share of all magnitudes."""
    cumulated = np.cumsum(statistics.counts)
    place = int(np.searchsorted(cumulated, cumulated[-1] * (percentile / 100)))
    return min(place, BINS - 1) + 1


def _entropy(statistics: Statistics, _: float) -> float:
    """The range whose histogram in `_LEVELS` steps diverges least from the finer one."""
    counts = statistics.counts.astype(np.float64)
    # Exact zeros are exact in every range; a mask's or a ReLU's would drown the rest.
    counts[0] = min(counts[0], counts[1])
    used = int(np.flatnonzero(statistics.counts)[-1]) + 1
    first = max(_LEVELS, _bins_for(statistics, _LEAST_KEPT))
    stops = [*range(first, used, _STEP), max(used, _LEVELS)]
    divergences = [_divergence(counts, stop) for stop in stops]
    return float(stops[int(np.argmin(divergences))] * statistics.reach / BINS)


def _divergence(counts: NDArray[np.float64], stop: int) -> float:
    """KL(fine || coarse) of what is left when everything from bin `stop` on is cut to the last."""
    fine = counts[:stop].copy()
    edges = np.minimum(np.arange(_LEVELS + 1) * stop // _LEVELS, stop)
    starts, widths = edges[:-1], np.diff(edges)
    filled = fine > 0
    # A level spreads what fell into it over those of its bins that held anything. What was cut
    # off is in the fine histogram's last bin, and in no level: that is its price.
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
