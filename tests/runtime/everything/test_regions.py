"""Small regions are handled as in segment_anything, which uses OpenCV."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import remove_small_regions

from glesam_runtime.everything.regions import fill_small_holes, remove_small_islands
from glesam_runtime.rle import count_runs, runs_to_mask


def check(mask: np.ndarray, min_area: int) -> None:
    """Compare holes and islands with segment_anything's, separately and one after the other."""
    height, width = mask.shape
    runs = count_runs(mask)
    for mode, ours in (("holes", fill_small_holes), ("islands", remove_small_islands)):
        expected, expected_change = remove_small_regions(mask, min_area, mode)
        made, changed = ours(runs, height, min_area)
        np.testing.assert_array_equal(runs_to_mask(made, height, width), expected)
        assert changed == expected_change
        assert made.tolist() == count_runs(expected).tolist()
    filled, _ = remove_small_regions(mask, min_area, "holes")
    expected, _ = remove_small_regions(filled, min_area, "islands")
    made, _ = fill_small_holes(runs, height, min_area)
    made, _ = remove_small_islands(made, height, min_area)
    np.testing.assert_array_equal(runs_to_mask(made, height, width), expected)


@settings(max_examples=300)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    density=st.sampled_from([0.0, 0.05, 0.2, 0.4, 0.6, 0.9, 1.0]),
    min_area=st.sampled_from([1, 2, 3, 5, 12, 1000]),
    seed=st.integers(0, 2**32 - 1),
)
@example(height=9, width=9, density=0.05, min_area=1000, seed=3)
def test_noise(height: int, width: int, density: float, min_area: int, seed: int) -> None:
    check(np.random.default_rng(seed).random((height, width)) < density, min_area)


def test_of_equal_islands_the_first_in_blocks_of_four_stays() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[0, 6] = mask[1, 0] = mask[5, 3] = True
    check(mask, 10)


def test_a_spiral_is_one_region() -> None:
    """Test one region of many pieces, which the algorithm joins step by step."""
    mask = np.zeros((101, 101), np.bool_)
    for ring in range(0, 50, 2):
        mask[ring, max(ring - 2, 0) : 101 - ring] = True
        mask[ring : 101 - ring, 100 - ring] = True
        mask[100 - ring, ring : 101 - ring] = True
        mask[ring + 2 : 101 - ring, ring] = True
    check(mask, 500)
    check(~mask, 500)


@pytest.mark.parametrize("density", [0.3, 0.5])
def test_noise_of_two_megapixels_in_a_moment(density: float) -> None:
    """Test the worst case: hundreds of thousands of pieces."""
    mask = np.random.default_rng(0).random((1200, 1600)) < density
    runs = count_runs(mask)
    start = time.process_time()
    made, changed = remove_small_islands(runs, 1200, 50)
    assert time.process_time() - start < 5
    # segment_anything's own takes minutes over so many regions.
    _, regions, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), None, None, None, 8
    )
    expected = mask & (stats[:, cv2.CC_STAT_AREA] >= 50)[regions]
    assert changed
    np.testing.assert_array_equal(runs_to_mask(made, 1200, 1600), expected)
