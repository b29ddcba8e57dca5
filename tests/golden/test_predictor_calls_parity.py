"""Calls as segment_anything's and sam2's users write them give what their predictors give."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from glesam_runtime import GleSamPredictor, InputError
from glesam_runtime.compare import relative_l2

from .predictors import TOLERANCE, make_image
from .test_sam2_predictor_parity import image_predictor

if TYPE_CHECKING:
    from sam2.sam2_image_predictor import SAM2ImagePredictor
    from segment_anything import SamPredictor

    from glesam_export.checkpoints import Checkpoint

HEIGHT, WIDTH, LOW = 120, 200, 64
IMAGE = make_image(HEIGHT, WIDTH, seed=2)
INF = float("inf")


@pytest.fixture(scope="module")
def sam(nano_bundle: Path, nano_checkpoint: Checkpoint) -> tuple[GleSamPredictor, SamPredictor]:
    """Return our predictor and segment_anything's, with an image set."""
    from segment_anything import SamPredictor

    from glesam_export.families.sam.reference import build_sam

    decoder = nano_checkpoint.decoder()
    model = build_sam(nano_checkpoint.encoder(), decoder.prompt_encoder, decoder.mask_decoder)
    return with_image(GleSamPredictor(nano_bundle, enhance=False), SamPredictor(model))


@pytest.fixture(scope="module")
def sam2(
    nano2_bundle: Path, nano2_checkpoint: Checkpoint
) -> tuple[GleSamPredictor, SAM2ImagePredictor]:
    """Return our predictor and sam2's, with an image set."""
    ours = GleSamPredictor(nano2_bundle, enhance=False)
    return with_image(ours, image_predictor(nano2_checkpoint))


def with_image(ours: GleSamPredictor, theirs: Any) -> tuple[GleSamPredictor, Any]:
    for each in (ours, theirs):
        each.set_image(IMAGE)
    return ours, theirs


def assert_same(mine: Any, reference: Any) -> None:
    """Compare logits, scores and low-resolution logits: shapes, and values to the tolerance."""
    for array, expected in zip(mine, reference, strict=True):
        assert np.shape(array) == np.shape(expected)
        assert relative_l2(np.asarray(array), np.asarray(expected)) <= TOLERANCE


@st.composite
def calls(draw: st.DrawFn, sam2: bool) -> dict[str, Any]:
    """Draw the arguments of a call, in every form that the oracle takes.

    Points lie on the image's edges too, some are padding (label -1), and corners may be swapped.
    """
    batch = draw(st.integers(1, 3)) if sam2 else 1
    kinds = draw(st.sets(st.sampled_from(["points", "box", "mask"]), min_size=1))
    if kinds == {"mask"} or not sam2:
        batch = 1
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shares = draw(st.booleans()) if sam2 else False
    sides = np.ones(2) if shares else np.array([WIDTH, HEIGHT])
    arguments: dict[str, Any] = {"multimask_output": draw(st.booleans())}
    if sam2:
        arguments["normalize_coords"] = not shares
    if "points" in kinds:
        count = draw(st.integers(0 if "box" in kinds else 1, 4))
        places = rng.choice([0, 0.25, 0.5, 1], (batch, count, 2))
        labels = rng.integers(-1, 2, (batch, count))
        flat = batch == 1 and (not sam2 or draw(st.booleans()))
        arguments["point_coords"] = (places[0] if flat else places) * sides
        arguments["point_labels"] = labels[0] if flat else labels
    if "box" in kinds:
        boxes = (rng.choice([0, 0.2, 0.6, 1], (batch, 2, 2)) * sides).reshape(batch, 4)
        arguments["box"] = boxes[0] if batch == 1 and draw(st.booleans()) else boxes
    if "mask" in kinds:
        mask = rng.normal(0, 4, (1, LOW, LOW)).astype(np.float32)
        arguments["mask_input"] = mask[None] if sam2 and draw(st.booleans()) else mask
    return arguments


@settings(max_examples=30)
@given(arguments=calls(sam2=False))
def test_calls_of_segment_anything(
    arguments: dict[str, Any], sam: tuple[GleSamPredictor, SamPredictor]
) -> None:
    ours, theirs = sam
    expected = theirs.predict(**arguments, return_logits=True)
    assert_same(ours.predict(**arguments, return_logits=True), expected)


@settings(max_examples=40)
@given(arguments=calls(sam2=True))
def test_calls_of_sam2(
    arguments: dict[str, Any], sam2: tuple[GleSamPredictor, SAM2ImagePredictor]
) -> None:
    ours, theirs = sam2
    expected = theirs.predict(**arguments, return_logits=True)
    assert_same(ours.predict(**arguments, return_logits=True), expected)


@pytest.mark.parametrize("family", ["sam", "sam2"])
def test_infinite_mask_logits_make_the_oracles_return_nan(
    family: str, request: pytest.FixtureRequest
) -> None:
    """One infinite logit is enough: the oracles return NaN everywhere, so the call is refused."""
    ours, theirs = request.getfixturevalue(family)
    mask = np.ones((1, LOW, LOW), np.float32)
    mask[0, 20, 30] = INF
    with np.errstate(invalid="ignore"):
        expected, _, low_res = theirs.predict(mask_input=mask, return_logits=True)
    assert np.isnan(expected).all()
    assert np.isnan(low_res).all()
    with pytest.raises(InputError, match="infinity"):
        ours.predict(mask_input=mask)


@settings(max_examples=20)
@given(data=st.data())
def test_predict_torch(data: st.DataObject, sam: tuple[GleSamPredictor, SamPredictor]) -> None:
    ours, theirs = sam
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    batch, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))
    kinds = data.draw(st.sets(st.sampled_from(["points", "boxes", "mask"]), min_size=1))
    points = rng.choice([0, 0.3, 1], (batch, count, 2)) * [WIDTH, HEIGHT]
    boxes = (rng.choice([0, 0.3, 1], (batch, 2, 2)) * [WIDTH, HEIGHT]).reshape(batch, 4)
    size, half = (HEIGHT, WIDTH), data.draw(st.sampled_from([torch.float32, torch.float64]))
    many = 1 if kinds == {"mask"} else data.draw(st.sampled_from([1, batch]))
    labels = torch.as_tensor(rng.integers(-1, 2, (batch, count)))
    with_points, with_boxes = "points" in kinds, "boxes" in kinds
    arguments: dict[str, Any] = {
        "point_coords": torch.as_tensor(theirs.transform.apply_coords(points, size), dtype=half)
        if with_points
        else None,
        "point_labels": labels if with_points else None,
        "boxes": torch.as_tensor(theirs.transform.apply_boxes(boxes, size), dtype=half)
        if with_boxes
        else None,
        "mask_input": torch.as_tensor(rng.normal(0, 4, (many, 1, LOW, LOW)), dtype=torch.float32)
        if "mask" in kinds
        else None,
        "multimask_output": data.draw(st.booleans()),
    }
    singles = {
        name: value.float() if name in ("point_coords", "boxes") and value is not None else value
        for name, value in arguments.items()
    }
    expected = theirs.predict_torch(**singles, return_logits=True)
    mine = ours.predict_torch(**arguments, return_logits=True)
    assert [each.dtype for each in mine] == [each.dtype for each in expected]
    assert_same(mine, expected)
    masks = ours.predict_torch(**arguments)[0]
    assert masks.dtype == theirs.predict_torch(**singles)[0].dtype == torch.bool
    assert torch.equal(masks, mine[0] > 0)


def test_images_that_are_resized_already(sam: tuple[GleSamPredictor, SamPredictor]) -> None:
    ours, theirs = sam
    image = make_image(90, 300, seed=5)
    resized = torch.as_tensor(ours.transform.apply_image(image))
    batch = resized.permute(2, 0, 1)[None]
    try:
        for each in (ours, theirs):
            each.set_torch_image(batch, (90, 300))
        assert (ours.original_size, ours.input_size) == ((90, 300), theirs.input_size)
        assert relative_l2(ours.features, theirs.features.numpy()) <= TOLERANCE
        prompt = np.array([[150, 40]]), np.array([1])
        expected = theirs.predict(*prompt, return_logits=True)
        assert_same(ours.predict(*prompt, return_logits=True), expected)
        ours.set_image(image)
        np.testing.assert_allclose(ours.features, theirs.features.numpy(), atol=1e-4)
        wrong = (batch[0], batch.repeat(2, 1, 1, 1), batch[..., 1:], batch[:, :2])
        for tensor in wrong:
            with pytest.raises(InputError, match="the longer side 256 is needed"):
                ours.set_torch_image(tensor, (90, 300))
        with pytest.raises(InputError, match="at least 1, 1"):
            ours.set_torch_image(batch, (0, 300))
        with pytest.raises(InputError, match="not ndarray"):
            ours.set_torch_image(batch.numpy(), (90, 300))
        assert ours.original_size == (90, 300)
    finally:
        with_image(ours, theirs)


@settings(max_examples=30)
@given(height=st.integers(2, 700), width=st.integers(2, 700), seed=st.integers(0, 99))
def test_the_transform(
    height: int, width: int, seed: int, sam: tuple[GleSamPredictor, SamPredictor]
) -> None:
    ours, theirs = (each.transform for each in sam)
    size, side = (height, width), theirs.target_length
    assert ours.target_length == side
    expected = theirs.get_preprocess_shape(height, width, side)
    if 0 in expected:
        return
    assert ours.get_preprocess_shape(height, width, side) == expected
    points = np.random.default_rng(seed).uniform(0, 700, (3, 2, 2))
    boxes = points.reshape(3, 4)
    for name, values in (("coords", points), ("boxes", boxes)):
        mine = getattr(ours, f"apply_{name}")(values, size)
        reference = getattr(theirs, f"apply_{name}")(values, size)
        assert mine.dtype == reference.dtype
        np.testing.assert_allclose(mine, reference, rtol=1e-12)
        tensor = torch.as_tensor(values)
        mine = getattr(ours, f"apply_{name}_torch")(tensor, size)
        reference = getattr(theirs, f"apply_{name}_torch")(tensor, size)
        torch.testing.assert_close(mine, reference)


def test_the_transform_of_images(sam: tuple[GleSamPredictor, SamPredictor]) -> None:
    ours, theirs = (each.transform for each in sam)
    mine, reference = ours.apply_image(IMAGE), theirs.apply_image(IMAGE)
    assert mine.dtype == reference.dtype
    np.testing.assert_array_equal(mine, reference)
    batch = torch.as_tensor(IMAGE).permute(2, 0, 1)[None].float()
    resized = ours.apply_image_torch(batch)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(resized, reference, atol=1.0)  # the oracle rounds


def test_the_attributes(sam: tuple[GleSamPredictor, SamPredictor]) -> None:
    ours, theirs = sam
    assert ours.model.image_encoder.img_size == theirs.model.image_encoder.img_size
    assert ours.model.image_size == theirs.model.image_encoder.img_size
    assert ours.model.mask_threshold == ours.mask_threshold == theirs.model.mask_threshold
    assert ours.model.image_format == theirs.model.image_format
    assert torch.device(ours.device) == torch.device(ours.model.device) == theirs.device
    assert ours.features is not None
    assert relative_l2(ours.features, theirs.features.numpy()) <= TOLERANCE
    assert (ours.input_size, ours.original_size) == (theirs.input_size, theirs.original_size)


def test_batches_of_images_are_sam2s(sam2: tuple[GleSamPredictor, SAM2ImagePredictor]) -> None:
    ours, theirs = sam2
    sizes = [(120, 200), (300, 90), (64, 64)]
    images = [make_image(height, width, seed=height) for height, width in sizes]
    rng = np.random.default_rng(0)
    prompts: dict[str, Any] = {
        "point_coords_batch": [rng.uniform(0, 60, (count, 2)) for count in (1, 2, 3)],
        "point_labels_batch": [np.ones(count) for count in (1, 2, 3)],
        "box_batch": [np.array([5, 6, 40, 50]), np.array([[1, 2, 30, 40]]), None],
    }
    boxes = {"box_batch": [rng.uniform(0, 60, (count, 4)) for count in (1, 2, 3)]}
    try:
        for each in (ours, theirs):
            each.set_image_batch(images)
        embeddings = theirs.get_image_embedding().numpy()
        assert relative_l2(ours.get_image_embedding(), embeddings) <= TOLERANCE
        for arguments in (prompts, boxes, {**prompts, "multimask_output": False}):
            expected = theirs.predict_batch(**arguments, return_logits=True)
            mine = ours.predict_batch(**arguments, return_logits=True)
            for own, reference in zip(mine, expected, strict=True):
                assert isinstance(own, list)
                assert_same(own, reference)
        # Afterwards `predict` uses the last image.
        last = theirs.predict(box=np.array([5, 6, 40, 50]), return_logits=True)
        assert_same(ours.predict(box=np.array([5, 6, 40, 50]), return_logits=True), last)
    finally:
        with_image(ours, theirs)


def test_pil_images_are_sam2s(sam2: tuple[GleSamPredictor, SAM2ImagePredictor]) -> None:
    ours, theirs = sam2
    picture = Image.fromarray(make_image(70, 130, seed=6))
    try:
        for each in (ours, theirs):
            each.set_image(picture)
        assert ours.original_size == (70, 130)
        reference = theirs.get_image_embedding().numpy()
        assert relative_l2(ours.get_image_embedding(), reference) <= TOLERANCE
        for mode in ("L", "RGBA", "CMYK"):
            with pytest.raises(RuntimeError, match=r"must match|broadcast shape"):
                theirs.set_image(picture.convert(mode))
            with pytest.raises(InputError, match=f"of the mode {mode}; call image.convert"):
                ours.set_image(picture.convert(mode))
        with pytest.raises(InputError, match="PIL images are RGB"):
            ours.set_image(picture, image_format="BGR")
    finally:
        with_image(ours, theirs)
