"""Test scenes: deterministic, of any size, with masks that are exactly what is visible."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glesam_evaluation.scenes import Scene, make_scene
from glesam_runtime.errors import InputError


def check(scene: Scene, height: int, width: int) -> None:
    assert scene.image.shape == (height, width, 3)
    assert scene.image.dtype == np.uint8
    assert scene.instances.shape == (height, width)
    assert scene.instances.dtype == np.int32
    assert scene.masks.shape == (scene.count, height, width)
    assert scene.masks.dtype == np.bool_
    assert scene.masks.sum(axis=0).max() <= 1  # disjoint
    assert scene.masks.any(axis=(1, 2)).all()  # none empty
    np.testing.assert_array_equal(scene.masks.any(axis=0), scene.instances > 0)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**64),
    height=st.integers(16, 90),
    width=st.integers(16, 90),
    most=st.integers(1, 12),
)
def test_masks_are_disjoint_and_never_empty(seed: int, height: int, width: int, most: int) -> None:
    scene = make_scene(seed, height, width, shapes=(1, most))
    check(scene, height, width)
    assert 1 <= scene.count <= most


def test_same_seed_same_scene_other_seed_other_scene() -> None:
    one, again, other = (make_scene(seed, 64, 64) for seed in (3, 3, 4))
    np.testing.assert_array_equal(one.image, again.image)
    np.testing.assert_array_equal(one.instances, again.instances)
    assert (one.image != other.image).any()


def test_every_instance_is_as_visible_as_asked() -> None:
    for seed in range(10):
        areas = make_scene(seed, 128, 128, min_visible=0.01).masks.sum(axis=(1, 2))
        assert areas.min() >= 0.01 * 128 * 128


def test_the_picture_has_its_edges_where_the_masks_end() -> None:
    """Check that colours change more between two leaves than within one, as masks claim."""
    at_border, within = [], []
    for seed in range(8):
        scene = make_scene(seed, 192, 192, shapes=(40, 50))
        step = np.abs(np.diff(scene.image.astype(float), axis=1)).max(axis=2)
        left, right = scene.instances[:, :-1], scene.instances[:, 1:]
        leaves = (left > 0) & (right > 0)
        at_border.append(step[leaves & (left != right)].mean())
        within.append(step[leaves & (left == right)].mean())
    assert np.mean(at_border) > 3 * np.mean(within)


def test_a_scene_takes_milliseconds() -> None:
    make_scene(0)
    started = time.process_time()
    for seed in range(5):
        make_scene(seed)
    assert (time.process_time() - started) / 5 < 0.25  # 0.02 on an idle machine


@pytest.mark.parametrize(
    "bad",
    [
        {"seed": -1},
        {"seed": "1"},
        {"seed": 0, "height": 15},
        {"seed": 0, "width": 10_000},
        {"seed": 0, "shapes": (0, 3)},
        {"seed": 0, "shapes": (4, 3)},
        {"seed": 0, "min_visible": 1.0},
        {"seed": 0, "min_visible": float("nan")},
    ],
)
def test_bad_arguments_are_refused(bad: dict) -> None:
    with pytest.raises(InputError):
        make_scene(**bad)
