"""Test that statistics collected in pieces equal those of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glesam_calibration.statistics import BINS, Statistics
from glesam_runtime.errors import BundleError

pieces = st.lists(
    st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 300), st.floats(-12, 12)),
    min_size=1,
    max_size=6,
)


def drawn(pieces: list[tuple[int, int, float]]) -> list[np.ndarray]:
    return [
        (np.random.default_rng(seed).normal(size=(rows, 3)) * 2.0**scale).astype(np.float32)
        for seed, rows, scale in pieces
    ]


@given(pieces)
def test_pieces_add_up_to_the_whole(pieces: list[tuple[int, int, float]]) -> None:
    found = Statistics(channels=3)
    for piece in drawn(pieces):
        found.update(piece)
    whole = np.concatenate(drawn(pieces))
    magnitudes = np.abs(whole)
    assert (found.low, found.high) == (whole.min(), whole.max())
    assert found.largest == magnitudes.max()
    np.testing.assert_array_equal(found.channels, magnitudes.max(axis=0))
    assert found.reach / 2 <= found.largest <= found.reach
    edges = np.linspace(0, found.reach, BINS + 1)
    counts, _ = np.histogram(magnitudes.astype(np.float64), edges)
    np.testing.assert_array_equal(found.counts, counts)


@given(pieces)
def test_they_can_be_saved_halfway(pieces: list[tuple[int, int, float]]) -> None:
    straight, broken = Statistics(channels=3), Statistics(channels=3)
    for piece in drawn(pieces):
        straight.update(piece)
        broken = Statistics.from_tensors(broken.as_tensors())
        broken.update(piece)
    ours, theirs = broken.as_tensors(), straight.as_tensors()
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_zeros_are_counted_and_nothing_is_nothing() -> None:
    found = Statistics()
    found.update(np.zeros((2, 5), np.float32))
    found.update(np.zeros((0, 5), np.float32))
    assert (found.largest, found.counts[0], found.counts.sum()) == (0.0, 10, 10)
    found.update(np.full(3, -6, np.float32))
    assert (found.largest, found.reach) == (6.0, 8.0)
    assert (found.counts[0], found.counts[6 * BINS // 8]) == (10, 3)
    assert Statistics().largest == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told_by_name(bad: float) -> None:
    with pytest.raises(BundleError, match="encoder: val_7: is not finite"):
        Statistics().update(np.asarray([0, bad], np.float32), "encoder: val_7")
