"""Collect statistics of a tensor, in memory that does not grow with the number of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 4096
"""Bins of a histogram. Its reach is a power of two, so that at least half of the bins are used."""


class Statistics:
    """Minimum, maximum, a histogram of magnitudes, and the largest magnitude of each channel.

    The histogram reaches from 0 to 2 ** `exponent`. For a larger value its reach doubles, and pairs
    of bins are merged. The counts are then the same as with the larger reach from the start.
    """

    def __init__(self, channels: int | None = None) -> None:
        """Start empty.

        Args:
            channels: size of the last axis; None collects no statistics per channel.
        """
        self.low = np.float32(np.inf)
        self.high = np.float32(-np.inf)
        self.exponent: int | None = None
        """None as long as all values were 0."""
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.channels: NDArray[np.float32] | None = (
            None if channels is None else np.zeros(channels, np.float32)
        )

    @property
    def largest(self) -> float:
        """Return the largest magnitude seen; 0 if there was none."""
        return max(0.0, float(self.high), -float(self.low))

    @property
    def reach(self) -> float:
        """Return the upper end of the histogram."""
        return 1.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    def update(self, values: NDArray[np.float32], name: str = "a tensor") -> None:
        """Add one more sample of the tensor, float32 of any shape.

        Raises:
            BundleError: the sample has NaN or infinity; the message starts with `name`.
        """
        if values.size == 0:
            return
        low, high = values.min(), values.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise BundleError(
                f"{name}: is not finite on a calibration image; verify the float bundle first"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        magnitudes = np.abs(values)
        if self.channels is not None:
            flat = magnitudes.reshape(-1, magnitudes.shape[-1])
            np.maximum(self.channels, flat.max(axis=0), out=self.channels)
        self._stretch(float(max(high, -low)))
        scaled = magnitudes.ravel() * np.float32(BINS / self.reach)
        places = np.minimum(scaled.astype(np.int32), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def _stretch(self, largest: float) -> None:
        """Extend the histogram to `largest`."""
        if largest == 0.0:
            return
        # Values below 2 ** -100 count as 0, because 2 ** -exponent must be a float32.
        needed = max(math.frexp(largest)[1], -100)
        if self.exponent is None:
            self.exponent = needed  # all counts so far are zeros, in the first bin of any reach
        while self.exponent < needed:
            self.exponent += 1
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([merged, np.zeros(BINS - len(merged), np.int64)])

    def as_tensors(self) -> dict[str, NDArray[np.generic]]:
        """Return all statistics as tensors, for a file."""
        known = self.exponent is not None
        tensors: dict[str, NDArray[np.generic]] = {
            "range": np.asarray([self.low, self.high], np.float32),
            "exponent": np.asarray([known, self.exponent or 0], np.int64),
            "counts": self.counts,
        }
        if self.channels is not None:
            tensors["channels"] = self.channels
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Statistics:
        """Restore statistics from the tensors of `as_tensors`."""
        found = cls()
        found.low, found.high = np.asarray(tensors["range"], np.float32)
        known, exponent = np.asarray(tensors["exponent"], np.int64).tolist()
        found.exponent = exponent if known else None
        found.counts = np.array(tensors["counts"], np.int64)
        if "channels" in tensors:
            found.channels = np.array(tensors["channels"], np.float32)
        return found
