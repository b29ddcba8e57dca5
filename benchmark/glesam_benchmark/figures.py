"""One quantity over several rounds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec


class Figures(msgspec.Struct, frozen=True):
    """Median, least and most of the rounds; seconds."""

    median: float
    min: float
    max: float
    rounds: tuple[float, ...]


def figures(values: Sequence[float]) -> Figures:
    """Of at least one value."""
    return Figures(statistics.median(values), min(values), max(values), tuple(values))
