"""Prompt tensors suit segment_anything's prompt encoder, and wrong prompts are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.modeling import PromptEncoder
from segment_anything.utils.transforms import ResizeLongestSide

from glesam_runtime import InputError
from glesam_runtime.image import geometry_of
from glesam_runtime.manifest import Coordinates
from glesam_runtime.prompts import check_prompts, prompt_tensors

SIZE = 64
GEOMETRY = geometry_of(90, 120, SIZE)
RULES = Coordinates("xy", "resized_pixels", 0.5, {}, "two_points")
SAM2_RULES = Coordinates("xy", "resized_pixels", 0.5, {}, "two_points_padded")
torch.manual_seed(0)
ENCODER = PromptEncoder(32, (SIZE // 16, SIZE // 16), (SIZE, SIZE), 16).eval()


def embed(coords: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    """Embed the contract's tokens by label, as a decoder graph does."""
    points, marks = torch.from_numpy(coords), torch.from_numpy(labels)
    table = torch.stack([e.weight[0] for e in ENCODER.point_embeddings])
    positions = ENCODER.pe_layer.forward_with_coords(points + 0.5, (SIZE, SIZE))
    padding = (marks == -1)[..., None]
    known = positions + table[marks.clamp(min=0).long()]
    return torch.where(padding, ENCODER.not_a_point_embed.weight[0], known)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_tokens_are_the_prompt_encoders(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(2, 400)), data.draw(st.integers(2, 400))
    batch, count = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4))
    with_box = data.draw(st.booleans()) or count == 0
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    points = rng.uniform(0, 1, (batch, count, 2)) * [width - 1, height - 1]
    labels = rng.integers(-1, 2, (batch, count))
    corners = np.sort(rng.uniform(0, 1, (batch, 2, 2)), axis=1) * [width, height]
    boxes = corners.reshape(batch, 4) + np.array([0, 0, 0.1, 0.1])
    if data.draw(st.booleans()):  # swapped corners
        boxes = boxes[:, [2, 1, 0, 3]]

    geometry = geometry_of(height, width, SIZE)
    tensors = prompt_tensors(
        check_prompts(
            geometry,
            points if count else None,
            labels if count else None,
            boxes if with_box else None,
            swapped_corners=True,
        ),
        geometry,
        RULES,
    )
    transform = ResizeLongestSide(SIZE)
    size = (height, width)
    if 0 in transform.get_preprocess_shape(height, width, SIZE):
        return
    scaled = torch.as_tensor(transform.apply_coords(points, size), dtype=torch.float)
    frames = torch.as_tensor(transform.apply_boxes(boxes, size), dtype=torch.float)
    expected, _ = ENCODER(
        points=(scaled, torch.as_tensor(labels, dtype=torch.int)) if count else None,
        boxes=frames if with_box else None,
        masks=None,
    )
    assert tensors["point_coords"].dtype == tensors["point_labels"].dtype == np.float32
    actual = embed(tensors["point_coords"], tensors["point_labels"])
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("points", "boxes", "expected"),
    [
        ([[[12, 9]]], None, [1, -1]),
        (None, [[0, 0, 60, 45]], [2, 3, -1]),
        ([[[12, 9]]], [[0, 0, 60, 45]], [1, 2, 3, -1]),
        (None, None, []),
    ],
)
def test_sam2_pads_every_prompt_and_stretches(
    points: Any, boxes: Any, expected: list[float]
) -> None:
    geometry = geometry_of(90, 120, SIZE, "square")
    labels = None if points is None else [[1]]
    mask = np.ones((1, 1, 16, 16)) if points is None and boxes is None else None
    tensors = prompt_tensors(
        check_prompts(geometry, points, labels, boxes, mask), geometry, SAM2_RULES
    )
    assert tensors["point_labels"].tolist() == [expected]
    for label, xy in zip(expected, tensors["point_coords"][0].tolist(), strict=True):
        place = {1: [12 * 64 / 120, 9 * 64 / 90], 2: [0, 0], 3: [32, 32], -1: [0, 0]}[label]
        assert xy == pytest.approx(place)


def test_a_mask_alone_has_no_tokens() -> None:
    mask = np.ones((2, 1, 16, 16))
    tensors = prompt_tensors(check_prompts(GEOMETRY, masks=mask), GEOMETRY, RULES)
    assert tensors["point_coords"].shape == (2, 0, 2)
    assert tensors["point_labels"].shape == (2, 0)
    assert tensors["has_mask_input"].tolist() == [1]
    np.testing.assert_array_equal(tensors["mask_input"], mask)


def test_without_a_mask_it_is_switched_off() -> None:
    tensors = prompt_tensors(check_prompts(GEOMETRY, [[[1, 2]]], [[1]]), GEOMETRY, RULES)
    assert tensors["has_mask_input"].tolist() == [0]
    assert tensors["mask_input"].shape == (1, 1, 16, 16)
    assert not tensors["mask_input"].any()
    assert tensors["point_labels"].tolist() == [[1, -1]]


NAN, INF = float("nan"), float("inf")
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "no prompt"),
    "points without labels": ({"point_coords": [[[1, 1]]]}, "without labels"),
    "labels without points": ({"point_labels": [[1]]}, "without points"),
    "no points": ({"point_coords": np.zeros((1, 0, 2)), "point_labels": [[]]}, "no prompt"),
    "three numbers a point": ({"point_coords": [[[1, 1, 1]]], "point_labels": [[1]]}, "shape"),
    "left of the image": ({"point_coords": [[[-1, 1]]], "point_labels": [[1]]}, "120 x 90"),
    "right of the image": ({"point_coords": [[[120.5, 1]]], "point_labels": [[1]]}, "outside"),
    "below the image": ({"point_coords": [[[1, 90.5]]], "point_labels": [[1]]}, "outside"),
    "NaN point": ({"point_coords": [[[NAN, 1]]], "point_labels": [[1]]}, "NaN"),
    "infinite point": ({"point_coords": [[[1, INF]]], "point_labels": [[1]]}, "NaN or infinity"),
    "label 2": ({"point_coords": [[[1, 1]]], "point_labels": [[2]]}, "label 2"),
    "label 0.5": ({"point_coords": [[[1, 1]]], "point_labels": [[0.5]]}, "label 0.5"),
    "a label too many": ({"point_coords": [[[1, 1]]], "point_labels": [[1, 1]]}, "match"),
    "words": ({"point_coords": [[["a", "b"]]], "point_labels": [[1]]}, "not an array of numbers"),
    "ragged": ({"point_coords": [[[1, 1], [2]]], "point_labels": [[1, 1]]}, "not an array"),
    "box backwards in x": ({"boxes": [[50, 10, 40, 50]]}, "x1 must exceed x0"),
    "box without width": ({"boxes": [[50, 10, 50, 50]]}, "x1 must exceed x0"),
    "box backwards in y": ({"boxes": [[10, 50, 40, 10]]}, "y1 must exceed y0"),
    "box of three": ({"boxes": [[1, 2, 3]]}, "shape"),
    "box outside": ({"boxes": [[200, 10, 210, 50]]}, "outside"),
    "swapped box outside": ({"boxes": [[210, 50, 200, 10]], "swapped_corners": True}, "outside"),
    "box far beyond": ({"boxes": [[0, 0, 1e6, 50]]}, "too far beyond"),
    "swapped box far beyond": (
        {"boxes": [[1e6, 0, 0, 50]], "swapped_corners": True},
        "too far beyond",
    ),
    "infinite box": ({"boxes": [[0, 0, INF, 50]]}, "NaN or infinity"),
    "NaN box": ({"boxes": [[0, 0, NAN, 50]]}, "NaN"),
    "mask of another size": ({"masks": np.zeros((1, 1, 256, 256))}, r"\[1, 16, 16\]"),
    "NaN mask": ({"masks": np.full((1, 1, 16, 16), NAN)}, "NaN"),
    "infinite mask": ({"masks": np.full((1, 1, 16, 16), -INF)}, "clip the logits"),
    "mask beyond float32": ({"masks": np.full((1, 1, 16, 16), 1e300)}, "clip the logits"),
    "batches that differ": (
        {"point_coords": [[[1, 1]], [[2, 2]]], "point_labels": [[1], [1]], "boxes": [[0, 0, 9, 9]]},
        "2 points, 1 boxes",
    ),
    "two masks for three boxes": (
        {"boxes": [[0, 0, 9, 9]] * 3, "masks": np.zeros((2, 1, 16, 16))},
        "3 boxes, 2 masks",
    ),
    "no masks": ({"boxes": [[0, 0, 9, 9]], "masks": np.zeros((0, 1, 16, 16))}, "0 masks"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_prompts(name: str) -> None:
    arguments, expected = BAD[name]
    with pytest.raises(InputError, match=expected) as caught:
        check_prompts(GEOMETRY, **arguments)
    assert "\n" not in str(caught.value)


def test_a_jittered_box_may_leave_the_image() -> None:
    prompts = check_prompts(GEOMETRY, boxes=[[-12, -3, 130, 95]])
    assert prompts.boxes is not None
    assert prompts.boxes.tolist() == [[-12, -3, 130, 95]]  # not clipped, as in segment_anything
