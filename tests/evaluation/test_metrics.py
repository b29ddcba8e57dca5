"""Compare IoU, Dice and pixel accuracy with other implementations and with each other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from scipy import ndimage

from glesam_evaluation.metrics import boundary_iou, dice, iou, pixel_accuracy
from glesam_runtime.compare import mask_iou
from glesam_runtime.errors import InputError


def pair(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    low, high = rng.random(2)
    return rng.random((height, width)) < low, rng.random((height, width)) < high


pairs = st.builds(pair, st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=80)
@given(masks=pairs)
def test_against_coco_numpy_and_each_other(masks: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, truth = masks
    assert iou(predicted, truth) == mask_iou(predicted, truth)
    if (predicted | truth).any():
        coded = [coco.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        assert iou(predicted, truth) == pytest.approx(coco.iou(coded[:1], coded[1:], [0])[0, 0])
        weight = predicted.sum() + truth.sum()
        assert dice(predicted, truth) == pytest.approx(2 * (predicted & truth).sum() / weight)
    assert pixel_accuracy(predicted, truth) == pytest.approx((predicted == truth).mean())
    overlap = iou(predicted, truth)
    assert dice(predicted, truth) == pytest.approx(2 * overlap / (1 + overlap))
    for metric in (iou, dice, pixel_accuracy):
        assert 0 <= metric(predicted, truth) <= 1
        assert metric(predicted, truth) == metric(truth, predicted)
        assert metric(truth, truth) == 1


def test_a_stack_gives_a_figure_a_mask() -> None:
    predicted, truth = np.random.default_rng(0).random((2, 3, 2, 5, 6)) < 0.5
    for metric in (iou, dice, pixel_accuracy):
        figures = metric(predicted, truth)
        assert figures.shape == (3, 2)
        assert figures.dtype == np.float64
        assert figures[2, 1] == metric(predicted[2, 1], truth[2, 1])


def test_empty_and_opposite() -> None:
    empty, full = np.zeros((2, 2), np.bool_), np.ones((2, 2), np.bool_)
    assert [float(metric(empty, empty)) for metric in (iou, dice, pixel_accuracy)] == [1, 1, 1]
    assert [float(metric(empty, full)) for metric in (iou, dice, pixel_accuracy)] == [0, 0, 0]


def test_masks_that_do_not_match_are_refused() -> None:
    mask = np.zeros((2, 2), np.bool_)
    for metric in (iou, dice, pixel_accuracy):
        for other in (mask[None], np.zeros((2, 3), np.bool_), mask.astype(np.uint8)):
            with pytest.raises(InputError):
                metric(other, mask)
        with pytest.raises(InputError):
            metric(mask[0], mask[0])


def boundary(mask: np.ndarray, width: float) -> np.ndarray:
    """Return the boundary as its paper defines it: the mask without its erosion."""
    steps = max(1, round(width * np.hypot(*mask.shape)))
    square = np.ones((2 * steps + 1, 2 * steps + 1), np.bool_)
    return mask & ~ndimage.binary_erosion(mask, square, border_value=0)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    height=st.integers(1, 50),
    columns=st.integers(1, 50),
    width=st.sampled_from((0.001, 0.02, 0.06, 0.3)),
)
def test_boundary_iou_is_that_of_scipys_erosion(
    seed: int, height: int, columns: int, width: float
) -> None:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.standard_normal((2, height, columns)), (0, 4, 4))
    predicted, truth = smooth > np.quantile(smooth, rng.random(2))[:, None, None]
    ours = boundary_iou(predicted, truth, width=width)
    one, other = boundary(predicted, width), boundary(truth, width)
    either = (one | other).sum()
    expected = (one & other).sum() / either if either else 1
    assert ours == pytest.approx(expected)
    assert boundary_iou(truth, truth, width=width) == 1


def test_boundary_iou_notices_an_edge_that_iou_does_not() -> None:
    rows, columns = np.mgrid[:200, :200]
    radius = np.hypot(rows - 100, columns - 100)
    large, smaller = radius < 90, radius < 86
    assert iou(smaller, large) > 0.9
    assert boundary_iou(smaller, large) < 0.4
    stack = boundary_iou(np.stack([large, smaller])[:, None], np.stack([large, large])[:, None])
    assert stack.shape == (2, 1)
    assert stack[0, 0] == 1


def test_empty_against_empty_is_what_the_caller_says() -> None:
    empty, full = np.zeros((3, 3), np.bool_), np.ones((3, 3), np.bool_)
    for metric in (iou, dice, boundary_iou):
        assert metric(empty, empty) == 1
        assert metric(empty, empty, empty=0) == 0
        assert metric(empty, full, empty=1) == 0
        assert metric(full, full, empty=0) == 1
    with pytest.raises(InputError):
        boundary_iou(empty[None], full)
