"""Runs equal segment_anything's uncompressed RLE."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything.utils.amg import (
    area_from_rle,
    batched_mask_to_box,
    mask_to_rle_pytorch,
    uncrop_masks,
)

from glesam_runtime import rle


@st.composite
def random_masks(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    density = draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1))).random((height, width)) < density


@given(random_masks())
def test_runs_area_and_box(mask: np.ndarray) -> None:
    (expected,) = mask_to_rle_pytorch(torch.from_numpy(mask)[None])
    counted = rle.count_runs(mask)
    assert counted.tolist() == expected["counts"]
    np.testing.assert_array_equal(rle.runs_to_mask(counted, *mask.shape), mask)
    assert rle.run_area(counted) == area_from_rle(expected)
    assert (
        list(rle.run_box(counted, len(mask)))
        == batched_mask_to_box(torch.from_numpy(mask)).tolist()
    )
    np.testing.assert_array_equal(rle.runs_to_mask(rle.invert_runs(counted), *mask.shape), ~mask)


@given(random_masks(), st.tuples(*[st.integers(0, 3)] * 4))
def test_a_mask_in_a_larger_frame(mask: np.ndarray, around: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = around
    height, width = top + mask.shape[0] + bottom, left + mask.shape[1] + right
    box = [left, top, left + mask.shape[1], top + mask.shape[0]]
    whole = uncrop_masks(torch.from_numpy(mask)[None], box, height, width)
    (expected,) = mask_to_rle_pytorch(whole)
    counted = rle.count_runs(mask, (height, width), (top, left))
    assert counted.tolist() == expected["counts"]
