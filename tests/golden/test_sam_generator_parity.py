"""Without the enhancer, a bundle gives the results of segment_anything's mask generator.

Random weights see noise everywhere, and masks that cover the image: a higher threshold of the
logits leaves scattered pixels of all sizes, some for every prompt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from msgspec.structs import replace

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor, open_bundle

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

    from glesam_export.checkpoints import Checkpoint

SHARED: dict[str, Any] = {
    "points_per_side": 6,
    "points_per_batch": 16,
    "pred_iou_thresh": 0.0,
    "stability_score_offset": 0.005,
    "stability_score_thresh": 0.0,
}
CASES: dict[str, tuple[float, dict[str, Any]]] = {
    "large masks": (0.08, {"box_nms_thresh": 1.0}),
    "small masks": (0.2, {"box_nms_thresh": 0.95}),
    "crops": (
        0.2,
        {"box_nms_thresh": 0.9, "crop_nms_thresh": 0.9, "crop_n_layers": 1, "points_per_side": 4},
    ),
    "small regions": (
        0.2,
        {"box_nms_thresh": 0.95, "crop_nms_thresh": 0.95, "min_mask_region_area": 30},
    ),
}
"""Threshold of the logits, and what differs from SHARED."""


@pytest.fixture(scope="module")
def sam(nano_checkpoint: Checkpoint) -> Sam:
    from glesam_export.families.sam.reference import build_sam

    decoder = nano_checkpoint.decoder()
    return build_sam(nano_checkpoint.encoder(), decoder.prompt_encoder, decoder.mask_decoder)


def make_image(height: int, width: int) -> np.ndarray:
    """Draw smooth waves with noise, uint8."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / rng.uniform(9, 60) + y / rng.uniform(9, 60)) for _ in range(3)]
    image = 128 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 12, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture
def both(nano_bundle: Path, sam: Sam, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function of logit threshold and parameters that returns both generators' records."""
    from segment_anything import SamAutomaticMaskGenerator

    opened = open_bundle(nano_bundle)
    image = make_image(330, 450)

    def run(threshold: float, parameters: dict[str, Any]) -> tuple[Any, Any]:
        rules = replace(opened.manifest.postprocessing, mask_threshold=threshold)
        manifest = replace(opened.manifest, postprocessing=rules)
        bundle = dataclasses.replace(opened, manifest=manifest)
        monkeypatch.setattr(sam, "mask_threshold", threshold)
        predictor = GleSamPredictor(bundle, enhance=False)
        ours = GleSamMaskGenerator(predictor, **parameters).generate(image)
        return ours, SamAutomaticMaskGenerator(sam, **parameters).generate(image)

    return run


@pytest.mark.parametrize("name", CASES)
def test_the_same_masks(
    name: str, both: Callable[..., Any], assert_same_records: Callable[..., None]
) -> None:
    threshold, different = CASES[name]
    ours, theirs = both(threshold, SHARED | different)
    assert len(theirs) >= 10
    if name == "crops":
        assert len({tuple(record["crop_box"]) for record in theirs}) > 1
    assert_same_records(ours, theirs)


@pytest.mark.parametrize(
    ("score", "parameter"),
    [("predicted_iou", "pred_iou_thresh"), ("stability_score", "stability_score_thresh")],
)
def test_the_same_choice_by_score(
    score: str,
    parameter: str,
    both: Callable[..., Any],
    assert_same_records: Callable[..., None],
) -> None:
    """Put the threshold into a gap between scores, so that rounding cannot decide."""
    everything = SHARED | {"box_nms_thresh": 1.0}
    _, all_masks = both(0.08, everything)
    chosen = everything | {parameter: widest_gap([record[score] for record in all_masks])}
    ours, theirs = both(0.08, chosen)
    assert 0.2 * len(all_masks) < len(theirs) < 0.8 * len(all_masks)
    assert_same_records(ours, theirs)


def widest_gap(values: list[float]) -> float:
    """Return the middle of the widest gap in the middle half of the values."""
    middle = np.sort(values)[len(values) // 4 : -len(values) // 4]
    at = int(np.argmax(np.diff(middle)))
    return float(middle[at] + middle[at + 1]) / 2
