"""Crops, grids and the edge filter equal segment_anything's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.amg import (
    build_all_layer_point_grids,
    generate_crop_boxes,
    is_box_near_crop_edge,
)

from glesam_runtime import InputError
from glesam_runtime.everything.crops import Crop, near_crop_edge, plan_crops
from glesam_runtime.everything.grids import even_grids


@given(
    height=st.integers(16, 900),
    width=st.integers(16, 900),
    layers=st.integers(0, 2),
    ratio=st.sampled_from([0, 0.1, 512 / 1500, 0.9]),
)
def test_crops(height: int, width: int, layers: int, ratio: float) -> None:
    boxes, of_layer = generate_crop_boxes((height, width), layers, ratio)
    crops = plan_crops(height, width, layers, ratio)
    assert [list(crop.box) for crop in crops] == boxes
    assert [crop.layer for crop in crops] == of_layer


@pytest.mark.parametrize(("side", "layers", "factor"), [(32, 0, 1), (7, 2, 2), (1, 0, 3)])
def test_grids(side: int, layers: int, factor: int) -> None:
    ours = even_grids(side, layers, factor)
    expected = build_all_layer_point_grids(side, layers, factor)
    assert len(ours) == len(expected)
    for mine, reference in zip(ours, expected, strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-15)


@given(st.tuples(*[st.integers(0, 99)] * 4), st.sampled_from([(0, 0), (40, 0), (30, 50)]))
def test_near_the_edge_of_a_crop(box: tuple[int, int, int, int], corner: tuple[int, int]) -> None:
    (x, y), size = corner, 130
    frame = [x, y, x + 100, y + 100]
    expected = is_box_near_crop_edge(torch.tensor([box]), frame, [0, 0, size, 2 * size])
    moved = (box[0] + x, box[1] + y, box[2] + x, box[3] + y)
    whole = Crop((0, 0, size, 2 * size), 0)
    assert near_crop_edge(moved, Crop(tuple(frame), 1), whole) == bool(expected[0])


@pytest.mark.parametrize(("height", "width"), [(2, 3), (2, 300)])
def test_too_small_for_crops(height: int, width: int) -> None:
    assert len(plan_crops(height, width, 0, 0.5)) == 1
    with pytest.raises(
        InputError, match=f"{width} x {height} pixels, too small .* the maximum is 1"
    ):
        plan_crops(height, width, 2, 0)
