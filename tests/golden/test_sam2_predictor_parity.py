"""Without the enhancer, a SAM 2 bundle gives the results of sam2's own image predictor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glesam_runtime import GleSamPredictor
from glesam_runtime.compare import mask_iou, relative_l2

from ..full_size import random_weights
from .predictors import IOU, SIZES, TOLERANCE, compare, make_image, prompts

if TYPE_CHECKING:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    from glesam_export.checkpoints import Checkpoint


def image_predictor(checkpoint: Checkpoint) -> SAM2ImagePredictor:
    """Return sam2's own predictor with the reference's weights."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    from glesam_export.families.sam2.reference import build_sam2

    predictor = SAM2ImagePredictor(build_sam2(checkpoint.encoder(), checkpoint.decoder()))
    side = checkpoint.preset.image_size
    # The predictor supports only 1024 pixels.
    predictor._bb_feat_sizes = [(side // step, side // step) for step in (4, 8, 16)]
    return predictor


@pytest.fixture(scope="module")
def ours(nano2_bundle: Path) -> GleSamPredictor:
    return GleSamPredictor(nano2_bundle, enhance=False)


@pytest.fixture(scope="module")
def theirs(nano2_checkpoint: Checkpoint) -> SAM2ImagePredictor:
    return image_predictor(nano2_checkpoint)


def set_image(ours: GleSamPredictor, theirs: SAM2ImagePredictor, image: np.ndarray) -> None:
    """Set an image in both predictors, and compare their embeddings."""
    ours.set_image(image)
    theirs.set_image(image)
    mine, reference = ours.get_image_embedding(), theirs.get_image_embedding().numpy()
    assert relative_l2(mine, reference) <= TOLERANCE


@settings(deadline=None, max_examples=6)
@given(data=st.data())
@pytest.mark.parametrize("name", SIZES)
def test_every_prompt_on_every_shape(
    name: str, data: st.DataObject, ours: GleSamPredictor, theirs: SAM2ImagePredictor
) -> None:
    height, width = SIZES[name]
    if ours.original_size != (height, width):  # encode once per size
        set_image(ours, theirs, make_image(height, width, seed=height))
        assert ours.input_size == (256, 256)
    compare(ours, theirs, data.draw(prompts(height, width)))


@settings(deadline=None, max_examples=6)
@given(height=st.integers(4, 500), width=st.integers(4, 500), data=st.data())
def test_any_size(
    height: int, width: int, data: st.DataObject, ours: GleSamPredictor, theirs: SAM2ImagePredictor
) -> None:
    set_image(ours, theirs, make_image(height, width, seed=height * width))
    compare(ours, theirs, data.draw(prompts(height, width)))


@pytest.mark.parametrize("multimask", [True, False])
def test_masks_whole_at_full_size(
    multimask: bool, ours: GleSamPredictor, theirs: SAM2ImagePredictor
) -> None:
    """Compare every pixel, also with a mask prompt from an earlier prediction."""
    set_image(ours, theirs, make_image(600, 800, seed=1))
    _, _, low = theirs.predict(np.array([[400, 300]]), np.array([1]), multimask_output=False)
    for extra in ({}, {"box": np.array([100, 80, 500, 400])}, {"mask_input": low}):
        arguments: dict[str, Any] = {
            "point_coords": np.array([[300.5, 200]]),
            "point_labels": np.array([1]),
            "multimask_output": multimask,
            **extra,
        }
        expected, _, _ = theirs.predict(**arguments)
        masks, _, _ = ours.predict(**arguments)
        for mine, reference in zip(masks, expected > 0, strict=True):
            assert mask_iou(mine, reference) >= IOU


@pytest.mark.parametrize("multimask", [True, False])
def test_batches_are_theirs(
    multimask: bool, ours: GleSamPredictor, theirs: SAM2ImagePredictor
) -> None:
    set_image(ours, theirs, make_image(120, 200, seed=2))
    boxes = np.array([[10, 10, 90, 80], [50, 0, 199, 119], [100, 40, 150, 100.5]])
    arguments = {"box": boxes, "multimask_output": multimask}
    _, expected_scores, expected = theirs.predict(**arguments)
    masks, scores, low = ours.predict(**arguments)
    assert masks.shape == (3, 3 if multimask else 1, 120, 200)
    assert relative_l2(low, expected) <= TOLERANCE
    assert relative_l2(scores, expected_scores) <= TOLERANCE


def test_the_enhancer_is_not_idle(nano2_bundle: Path, ours: GleSamPredictor) -> None:
    """Check that the enhancer changes the embeddings, so that the tests above mean something."""
    image = make_image(120, 200, seed=3)
    enhanced = GleSamPredictor(nano2_bundle)
    enhanced.set_image(image)
    ours.set_image(image)
    assert relative_l2(enhanced.get_image_embedding(), ours.get_image_embedding()) > 0.1


@pytest.mark.full
def test_hiera_t_at_full_size(hiera_t_bundle: Path) -> None:
    """Compare a full-size Hiera-T of SAM 2.1."""
    ours = GleSamPredictor(hiera_t_bundle, enhance=False)
    theirs = image_predictor(random_weights("sam2.1_hiera_t"))
    rng = np.random.default_rng(0)
    mask_input = rng.normal(0, 4, (1, 256, 256)).astype(np.float32)
    for height, width in ((700, 1000), (2000, 60)):
        set_image(ours, theirs, make_image(height, width, seed=4))
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
