"""Without the enhancer, a bundle gives the results of segment_anything's own predictor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glesam_runtime import GleSamPredictor
from glesam_runtime.compare import mask_iou, relative_l2

from .predictors import IOU, SIZES, TOLERANCE, compare, make_image, prompts

if TYPE_CHECKING:
    from segment_anything import SamPredictor

    from glesam_export.checkpoints import Checkpoint

    from ..full_size import FullExport


@pytest.fixture(scope="module")
def ours(nano_bundle: Path) -> GleSamPredictor:
    return GleSamPredictor(nano_bundle, enhance=False)


@pytest.fixture(scope="module")
def theirs(nano_checkpoint: Checkpoint) -> SamPredictor:
    from segment_anything import SamPredictor

    from glesam_export.families.sam.reference import build_sam

    decoder = nano_checkpoint.decoder()
    return SamPredictor(
        build_sam(nano_checkpoint.encoder(), decoder.prompt_encoder, decoder.mask_decoder)
    )


@settings(deadline=None, max_examples=6)
@given(data=st.data())
@pytest.mark.parametrize("name", SIZES)
def test_every_prompt_on_every_shape(
    name: str, data: st.DataObject, ours: GleSamPredictor, theirs: SamPredictor
) -> None:
    height, width = SIZES[name]
    if ours.original_size != (height, width):  # encode once per size
        image = make_image(height, width, seed=height)
        ours.set_image(image)
        theirs.set_image(image)
        assert ours.input_size == theirs.input_size
        assert relative_l2(ours.get_image_embedding(), theirs.features.numpy()) <= TOLERANCE
    compare(ours, theirs, data.draw(prompts(height, width)))


@settings(deadline=None, max_examples=6)
@given(height=st.integers(4, 500), width=st.integers(4, 500), data=st.data())
def test_any_size(
    height: int, width: int, data: st.DataObject, ours: GleSamPredictor, theirs: SamPredictor
) -> None:
    image = make_image(height, width, seed=height * width)
    ours.set_image(image)
    theirs.set_image(image)
    compare(ours, theirs, data.draw(prompts(height, width)))


def test_masks_whole_at_full_size(ours: GleSamPredictor, theirs: SamPredictor) -> None:
    """Compare every pixel, also with a mask prompt from an earlier prediction."""
    image = make_image(600, 800, seed=1)
    ours.set_image(image)
    theirs.set_image(image[..., ::-1], image_format="BGR")
    _, _, low = theirs.predict(np.array([[400, 300]]), np.array([1]), multimask_output=False)
    for extra in ({}, {"box": np.array([100, 80, 500, 400])}, {"mask_input": low}):
        arguments = {"point_coords": np.array([[300.5, 200]]), "point_labels": np.array([1])}
        expected, _, _ = theirs.predict(**arguments, **extra)
        masks, _, _ = ours.predict(**arguments, **extra)
        for mine, reference in zip(masks, expected, strict=True):
            assert mask_iou(mine, reference) >= IOU


def test_batches_are_predict_torchs(ours: GleSamPredictor, theirs: SamPredictor) -> None:
    import torch

    image = make_image(120, 200, seed=2)
    ours.set_image(image)
    theirs.set_image(image)
    boxes = np.array([[10, 10, 90, 80], [50, 0, 199, 119], [100, 40, 150, 100.5]])
    frames = torch.as_tensor(theirs.transform.apply_boxes(boxes, (120, 200)), dtype=torch.float)
    _, expected_scores, expected = theirs.predict_torch(None, None, frames)
    masks, scores, low = ours.predict(box=boxes)
    assert masks.shape == (3, 3, 120, 200)
    assert relative_l2(low, expected.numpy()) <= TOLERANCE
    assert relative_l2(scores, expected_scores.numpy()) <= TOLERANCE


def test_the_enhancer_is_not_idle(nano_bundle: Path, ours: GleSamPredictor) -> None:
    """Check that the enhancer changes the embeddings, so that the tests above mean something."""
    image = make_image(120, 200, seed=3)
    enhanced = GleSamPredictor(nano_bundle)
    enhanced.set_image(image)
    ours.set_image(image)
    assert relative_l2(enhanced.get_image_embedding(), ours.get_image_embedding()) > 0.1


@pytest.mark.full
def test_vit_b_at_full_size(vit_b_export: FullExport) -> None:
    """Compare a full-size ViT-B. The enhancer is not loaded."""
    from segment_anything import SamPredictor

    from glesam_export.families.sam.reference import build_sam

    checkpoint = vit_b_export.checkpoint
    ours = GleSamPredictor(vit_b_export.bundle, enhance=False)
    decoder = checkpoint.decoder()
    theirs = SamPredictor(
        build_sam(checkpoint.encoder(), decoder.prompt_encoder, decoder.mask_decoder)
    )
    rng = np.random.default_rng(0)
    mask_input = rng.normal(0, 4, (1, 256, 256)).astype(np.float32)
    for height, width in ((700, 1000), (2000, 60)):
        image = make_image(height, width, seed=4)
        ours.set_image(image)
        theirs.set_image(image)
        points = rng.uniform(0, 1, (3, 2)) * [width - 1, height - 1]
        box = np.array([0.1 * width, 0.2 * height, 0.8 * width, 0.9 * height])
        for multimask in (True, False):
            for prompt in (
                {"point_coords": points, "point_labels": np.array([1, 0, 1])},
                {"box": box},
                {"point_coords": points, "point_labels": np.array([1, 1, 1]), "box": box},
                {"mask_input": mask_input},
                {"box": box, "mask_input": mask_input},
            ):
                compare(ours, theirs, {**prompt, "multimask_output": multimask})
