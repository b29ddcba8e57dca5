"""Test how much of a range each method keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glesam_calibration.quantize import Recipe
from glesam_calibration.ranges import METHODS, kept_range
from glesam_calibration.statistics import BINS, Statistics
from glesam_runtime.errors import InputError


def seen(*pieces: np.ndarray) -> Statistics:
    found = Statistics()
    for piece in pieces:
        found.update(piece.astype(np.float32))
    return found


@given(st.integers(0, 2**32 - 1), st.sampled_from([90.0, 99.0, 99.9, 99.99, 100.0]))
def test_percentile_is_numpys_up_to_a_bin(seed: int, percentile: float) -> None:
    values = np.random.default_rng(seed).standard_t(4, 5000)
    found = seen(values)
    wanted = np.quantile(np.abs(values), percentile / 100, method="inverted_cdf")
    kept = kept_range(found, "percentile", percentile)
    assert wanted <= kept * (1 + 1e-6)
    assert kept - wanted <= found.reach / BINS * 1.001


@pytest.mark.parametrize("method", METHODS)
def test_no_method_keeps_more_than_there_is(method: str) -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=1000), rng.uniform(-3, 1, 1000), np.full(9, 0.3), np.zeros(4)):
        found = seen(values)
        assert 0 <= kept_range(found, method, 99.99) <= found.largest
    assert kept_range(seen(np.zeros(4)), method) == 0.0


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.5, 3, 30]))
def test_mse_is_the_least_of_rounding_every_value(seed: int, tails: float) -> None:
    values = np.random.default_rng(seed).standard_t(tails, 3000)

    def error(kept: float) -> float:
        step = kept / 127
        return float(np.square(values - np.rint(values / step).clip(-127, 127) * step).mean())

    largest = np.abs(values).max()
    least = min(error(largest * share) for share in np.linspace(0.02, 1, 200))
    assert error(kept_range(seen(values), "mse")) <= least * 1.05


def test_mse_keeps_outliers_that_are_worth_it() -> None:
    bulk = np.random.default_rng(0).normal(size=100_000)
    assert kept_range(seen(bulk, np.asarray([8.0])), "mse") < 6
    assert kept_range(seen(bulk, np.full(1000, 60.0)), "mse") > 59


def test_mse_is_not_for_floats() -> None:
    with pytest.raises(InputError, match="mse: supports int8 only"):
        Recipe(kind="fp8", method="mse")
    assert (Recipe().ranges_by, Recipe(kind="fp8").ranges_by) == ("mse", "min-max")


def test_min_max_keeps_everything() -> None:
    assert kept_range(seen(np.asarray([0.5, -70.0])), "min-max") == 70.0


def test_entropy_cuts_off_a_lone_outlier_but_not_a_uniform_range() -> None:
    rng = np.random.default_rng(1)
    bulk = rng.normal(size=200_000)
    assert kept_range(seen(bulk, np.asarray([60.0])), "entropy") < 10
    even = seen(rng.uniform(-1, 1, 200_000))
    assert kept_range(even, "entropy") > 0.95


def test_entropy_does_not_fall_for_a_number_that_is_there_all_the_time() -> None:
    rng = np.random.default_rng(2)
    found = seen(np.full(100_000, 0.01), rng.uniform(-4, 4, 20_000))
    assert kept_range(found, "entropy") > 3.9


@pytest.mark.parametrize("percentile", [50, 100.1, -1])
def test_percentiles_that_make_no_sense(percentile: float) -> None:
    with pytest.raises(InputError, match="above 50"):
        kept_range(seen(np.ones(3)), "percentile", percentile)
    with pytest.raises(InputError, match="must be one of mse, min-max, percentile, entropy"):
        kept_range(seen(np.ones(3)), "median")
