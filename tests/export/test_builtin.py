"""The nano bundle that ships inside the runtime is what this exporter makes."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import glesam_export
from glesam_evaluation.metrics import iou
from glesam_evaluation.prompting import random_points, tight_box
from glesam_evaluation.segmenters import BundleStages, StagedSegmenter
from glesam_export.families import family_of
from glesam_export.presets import sam_preset
from glesam_export.verify import reference_outputs
from glesam_export.verify.cases import make_cases
from glesam_export.verify.parity import measure
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime.bundle import builtin_bundle_path, load_golden, open_bundle
from glesam_runtime.compare import relative_l2
from glesam_runtime.prompts import BACKGROUND, FOREGROUND
from glesam_training.nano.coins import Coins

MAX_BYTES = 25_000_000
MAX_CHECKPOINT_BYTES = 13_000_000
COINS_BY_POINTS, COINS_BY_BOX = 0.88, 0.91
BUILT_IN_FOLDER = Path(glesam_export.__file__).parent


@pytest.fixture(scope="module")
def reference() -> tuple[list, list]:
    """Return cases, and the reference's outputs with nano's built-in weights."""
    nothing = (None,) * 7
    checkpoint = make_checkpoint(WeightOptions("nano", None, *nothing))
    cases = make_cases(checkpoint.preset)
    return cases, reference_outputs.record_reference(checkpoint, cases, lambda _: nullcontext())


def test_it_is_small_and_says_what_it_is() -> None:
    files = list(builtin_bundle_path().iterdir())
    assert sum(file.stat().st_size for file in files) < MAX_BYTES
    model = open_bundle().manifest.model
    assert (model.preset, model.unet, model.trained) == ("nano", "nano", True)
    for name in ("nano", "nano2"):
        assert (BUILT_IN_FOLDER / f"{name}.safetensors").stat().st_size < MAX_CHECKPOINT_BYTES
    preset = sam_preset("nano")
    assert family_of(preset).everything(preset) == open_bundle().manifest.everything


def test_it_passes_its_gates(reference: tuple[list, list]) -> None:
    parity = measure(open_bundle(), *reference, lambda _: nullcontext())
    assert parity.passed
    assert parity.gate.stage_relative_l2 == 1e-4


def test_its_golden_tensors_are_the_references(reference: tuple[list, list]) -> None:
    golden = load_golden(open_bundle())
    _, (first, *_) = reference
    low_res, iou = first.decoded["points"]
    expected = {
        "image_embeddings": first.z_l,
        "enhanced_embeddings": first.z_h,
        "low_res_masks": low_res,
        "iou_predictions": iou,
    }
    for name, tensor in expected.items():
        assert relative_l2(golden[name], tensor) < 1e-5


def test_it_segments_a_photograph() -> None:
    """Segment scikit-image's coins, each from three points and from its box."""
    coins = Coins()[0]
    segmenter = StagedSegmenter(BundleStages(open_bundle()), enhance=True)
    segmenter.set_image(coins.image)
    rng = np.random.default_rng(0)
    points = np.stack([random_points(mask, 3, rng) for mask in coins.masks])
    boxes = np.stack([tight_box(mask) for mask in coins.masks])
    by_points = segmenter.segment(points, np.ones(points.shape[:2], np.float32), None)
    by_box = segmenter.segment(None, None, boxes)
    assert iou(by_points, coins.masks).mean() > COINS_BY_POINTS
    assert iou(by_box, coins.masks).mean() > COINS_BY_BOX

    # A point in each coin; then also a background point in another coin, far away.
    alone = segmenter.segment(points[:, :1], np.ones((len(points), 1), np.float32), None)
    away = np.roll(points[:, :1], len(points) // 2, axis=0)
    corrected = segmenter.segment(
        np.concatenate([points[:, :1], away], axis=1),
        np.tile(np.float32([FOREGROUND, BACKGROUND]), (len(points), 1)),
        None,
    )
    assert iou(corrected, coins.masks).mean() > iou(alone, coins.masks).mean() - 0.06
