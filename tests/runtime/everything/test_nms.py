"""Non-maximum suppression equals torchvision's."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from glesam_runtime.everything.search import non_maximum_suppression


def theirs(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    one_class = torch.zeros(len(boxes))
    kept = batched_nms(
        torch.from_numpy(boxes).float(), torch.from_numpy(scores), one_class, threshold
    )
    return [int(index) for index in kept]


@given(
    count=st.integers(0, 60),
    spread=st.sampled_from([2, 6, 300]),
    levels=st.sampled_from([1, 2, 5, 1000]),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@example(count=40, spread=2, levels=1, threshold=0.0, seed=0)
def test_the_same_boxes_in_the_same_order(
    count: int, spread: int, levels: int, threshold: float, seed: int
) -> None:
    """Test many ties, boxes without area, and IoUs equal to the threshold."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, spread, (count, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, spread, (count, 2))], axis=1)
    scores = (rng.integers(0, levels, count) / levels).astype(np.float32)
    kept = non_maximum_suppression(boxes, scores, threshold)
    assert kept.tolist() == theirs(boxes, scores, threshold)


def test_as_many_boxes_as_a_dense_grid_gives() -> None:
    """Test over 1,000 boxes, for which torchvision's other algorithm may sort ties differently."""
    rng = np.random.default_rng(0)
    corners = rng.integers(0, 520, (2000, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 200, (2000, 2))], axis=1)
    scores = rng.permutation(2000).astype(np.float32)
    assert non_maximum_suppression(boxes, scores, 0.7).tolist() == theirs(boxes, scores, 0.7)
    tied = np.where(scores > 1000, 1, 0.5).astype(np.float32)
    assert set(non_maximum_suppression(boxes, tied, 0.5).tolist()) == set(theirs(boxes, tied, 0.5))
