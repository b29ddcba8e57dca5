"""Draw images and prompts of every kind, and compare a bundle's predictor with another one."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from glesam_runtime import GleSamPredictor
from glesam_runtime.compare import mask_iou, max_abs, relative_l2

TOLERANCE, IOU = 1e-4, 0.9999
SIZES = {
    "wide": (40, 900),
    "tall": (700, 31),
    "tiny": (3, 5),
    "a pixel": (1, 1),
    "square": (256, 256),
    "large": (1100, 1400),
}


def make_image(height: int, width: int, seed: int) -> np.ndarray:
    """Draw smooth ramps with noise, uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(3, 60) + y / rng.uniform(3, 60)) for _ in range(3)]
    image = 128 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@st.composite
def prompts(draw: st.DrawFn, height: int, width: int) -> dict[str, Any]:
    """Draw any mixture of points, a box and a mask prompt, at least one of them."""
    kinds = draw(st.sets(st.sampled_from(["points", "box", "mask"]), min_size=1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    arguments: dict[str, Any] = {"multimask_output": draw(st.booleans())}
    if "points" in kinds:
        count = draw(st.integers(1, 5))
        arguments["point_coords"] = rng.uniform(0, 1, (count, 2)) * [width - 1, height - 1]
        arguments["point_labels"] = rng.integers(0, 2, count)
    if "box" in kinds:
        corners = np.sort(rng.uniform(0, 1, (2, 2)), axis=0) * [width, height]
        arguments["box"] = corners.reshape(4) + np.array([0, 0, 0.5, 0.5])
    if "mask" in kinds:
        arguments["mask_input"] = rng.normal(0, 4, (1, 64, 64)).astype(np.float32)
    return arguments


def compare(ours: GleSamPredictor, theirs: Any, arguments: dict[str, Any]) -> None:
    """Compare logits, scores and masks of one prompt; both predictors have the image."""
    expected_logits, expected_scores, expected_low = theirs.predict(**arguments, return_logits=True)
    logits, scores, low = ours.predict(**arguments, return_logits=True)
    masks, _, _ = ours.predict(**arguments)
    assert masks.shape == expected_logits.shape
    assert relative_l2(low, expected_low) <= TOLERANCE
    assert relative_l2(scores, expected_scores) <= TOLERANCE
    # In an image of few pixels, one at the threshold could decide the IoU. Leave out those that lie
    # within the tolerance.
    close = TOLERANCE * np.abs(expected_low).max()
    assert max_abs(logits, expected_logits) <= close
    clear = np.abs(expected_logits) > close
    assert clear.size < 1000 or clear.mean() > 0.9
    for mine, reference, sure in zip(masks, expected_logits > 0, clear, strict=True):
        assert mask_iou(mine & sure, reference & sure) >= IOU
