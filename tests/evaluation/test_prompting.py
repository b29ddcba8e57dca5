"""Test prompts from masks: inside, tight, and with no more noise than asked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from glesam_evaluation.prompting import noise_box, random_points, tight_box
from glesam_runtime.errors import InputError
from glesam_runtime.image import geometry_of
from glesam_runtime.prompts import check_prompts


def blob(seed: int, height: int, width: int) -> np.ndarray:
    """Draw a random mask that is not empty."""
    rng = np.random.default_rng(seed)
    mask = rng.random((height, width)) < rng.random()
    mask[rng.integers(height), rng.integers(width)] = True
    return mask


masks = st.builds(blob, st.integers(0, 10_000), st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=60)
@given(mask=masks, count=st.integers(1, 30), seed=st.integers(0, 1000))
def test_points_lie_inside_and_repeat_only_when_all_are_used(
    mask: np.ndarray, count: int, seed: int
) -> None:
    points = random_points(mask, count, np.random.default_rng(seed))
    assert points.shape == (count, 2)
    assert points.dtype == np.float64
    x, y = points.astype(int).T
    assert mask[y, x].all()
    distinct = min(count, int(mask.sum()))
    assert len(np.unique(points[:distinct], axis=0)) == distinct
    np.testing.assert_array_equal(points, random_points(mask, count, np.random.default_rng(seed)))


def test_every_pixel_is_as_likely_first_as_last() -> None:
    mask = np.zeros((3, 4), np.bool_)
    mask[1, :] = True
    rng = np.random.default_rng(0)
    draws = np.stack([random_points(mask, 2, rng)[:, 0] for _ in range(2000)])
    for column in draws.T:
        assert np.bincount(column.astype(int), minlength=4) == pytest.approx(500, abs=80)


@settings(max_examples=60)
@given(mask=masks)
def test_the_box_is_cocos(mask: np.ndarray) -> None:
    x, y, width, height = coco.toBbox(coco.encode(np.asfortranarray(mask, np.uint8)))
    box = tight_box(mask)
    np.testing.assert_array_equal(box, [x, y, x + width, y + height])
    check_prompts(geometry_of(*mask.shape, 256), boxes=[box])


@settings(max_examples=100)
@given(mask=masks, amount=st.floats(0, 0.49), seed=st.integers(0, 1000))
def test_noise_stays_near_inside_and_not_empty(mask: np.ndarray, amount: float, seed: int) -> None:
    height, width = mask.shape
    box = tight_box(mask)
    noisy = noise_box(box, amount, np.random.default_rng(seed), height, width)
    x0, y0, x1, y1 = noisy
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    size = np.tile([box[2] - box[0], box[3] - box[1]], 2)
    assert (np.abs(noisy - box) <= amount * size + 1e-9).all()
    check_prompts(geometry_of(height, width, 256), boxes=[noisy])


def test_noise_uses_the_whole_of_its_range() -> None:
    rng = np.random.default_rng(0)
    box = np.asarray([40.0, 30.0, 60.0, 70.0])
    moved = np.stack([noise_box(box, 0.2, rng, 100, 100) for _ in range(500)]) - box
    np.testing.assert_allclose(np.abs(moved).max(axis=0), [4, 8, 4, 8], rtol=0.05)
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=0.6)
    np.testing.assert_array_equal(noise_box(box, 0, rng, 100, 100), box)


def test_bad_arguments_are_refused() -> None:
    rng = np.random.default_rng(0)
    mask, empty = np.ones((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    box = tight_box(mask)
    for bad in (
        lambda: random_points(empty, 1, rng),
        lambda: random_points(mask, 0, rng),
        lambda: random_points(mask[None], 1, rng),
        lambda: random_points(mask.astype(np.uint8), 1, rng),
        lambda: tight_box(empty),
        lambda: noise_box(box, 0.5, rng, 4, 4),
        lambda: noise_box(box, -0.1, rng, 4, 4),
        lambda: noise_box(box, float("nan"), rng, 4, 4),
        lambda: noise_box(box, 0.1, rng, 3, 4),
        lambda: noise_box(box[[2, 1, 0, 3]], 0.1, rng, 4, 4),
        lambda: noise_box(box * np.nan, 0.1, rng, 4, 4),
    ):
        with pytest.raises(InputError):
            bad()
