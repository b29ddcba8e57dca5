"""segment_anything's generator runs on the toy bundle's own graphs: masks that differ by prompt."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam
from torch import Tensor, nn

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor, InputError, chain, open_bundle

LOOSE: dict[str, Any] = {
    "points_per_side": 7,
    "points_per_batch": 10,
    "pred_iou_thresh": 0.48,
    "stability_score_thresh": 0.6,
    "stability_score_offset": 0.1,
}
THRESHOLD = 0.3
"""Of the masks' logits: most of a mask is the bump around its point."""

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no duplicates dropped": {"box_nms_thresh": 1.0},
    "hardly any overlap": {"box_nms_thresh": 0.1},
    "no thresholds": {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0},
    "another offset": {"stability_score_offset": 0.02, "stability_score_thresh": 0.95},
    "crops": {"crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    "two layers that overlap much": {
        "crop_n_layers": 2,
        "crop_overlap_ratio": 0.7,
        "crop_nms_thresh": 0.4,
        "points_per_side": 3,
    },
    "small regions": {"min_mask_region_area": 400},
    "small regions of crops": {"min_mask_region_area": 400, "crop_n_layers": 1},
    "own points": {
        "points_per_side": None,
        "point_grids": [np.array([[0, 0], [1, 1], [0.4, 0.7]]), np.array([[0.5, 0.2]])],
        "crop_n_layers": 1,
    },
}


class ToyEncoder(nn.Module):
    """The toy bundle's encoder as a torch module."""

    def __init__(self, predictor: GleSamPredictor) -> None:
        super().__init__()
        self.predictor = predictor
        self.img_size = predictor.bundle.manifest.preprocessing.image_size

    def forward(self, image: Tensor) -> Tensor:
        engine, manifest = self.predictor.engine, self.predictor.bundle.manifest
        features = chain.encode(engine, manifest, image.numpy())
        return torch.from_numpy(engine.to_host(features[chain.EMBEDDINGS]))


class ToyPromptEncoder(nn.Module):
    """A prompt encoder that passes points to the decoder."""

    def forward(self, points: tuple[Tensor, Tensor], **_: None) -> tuple[Any, None]:
        return points, None

    def get_dense_pe(self) -> None:
        return None


class ToyDecoder(nn.Module):
    """The toy bundle's decoder as a torch module."""

    def __init__(self, predictor: GleSamPredictor) -> None:
        super().__init__()
        self.predictor = predictor

    def forward(
        self, image_embeddings: Tensor, sparse_prompt_embeddings: Any, **_: Any
    ) -> tuple[Tensor, Tensor]:
        coords, labels = (value.numpy().astype(np.float32) for value in sparse_prompt_embeddings)
        side = self.predictor.bundle.manifest.preprocessing.image_size // 4
        prompts = {
            "point_coords": coords,
            "point_labels": labels,
            "mask_input": np.zeros((len(coords), 1, side, side), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
        }
        low_res, iou = chain.decode(
            self.predictor.engine, {chain.EMBEDDINGS: image_embeddings.numpy()}, prompts
        )
        return torch.from_numpy(low_res[:, 1:]), torch.from_numpy(iou[:, 1:])


@pytest.fixture(scope="module")
def predictor(toy_bundle: Path) -> GleSamPredictor:
    opened = open_bundle(toy_bundle)
    rules = replace(opened.manifest.postprocessing, mask_threshold=THRESHOLD)
    manifest = replace(opened.manifest, postprocessing=rules)
    return GleSamPredictor(dataclasses.replace(opened, manifest=manifest), enhance=False)


@pytest.fixture(scope="module")
def oracle(predictor: GleSamPredictor) -> Sam:
    sam = Sam(ToyEncoder(predictor), ToyPromptEncoder(), ToyDecoder(predictor))
    sam.mask_threshold = THRESHOLD
    return sam


@pytest.fixture
def scene() -> np.ndarray:
    """Draw blobs over a ramp, uint8 [90, 140, 3]; the toy model makes masks of them."""
    y, x = np.mgrid[0:90, 0:140]
    waves = [np.sin(x / a) * np.cos(y / b) for a, b in ((9, 14), (23, 7), (12, 31))]
    return (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("name", CASES)
def test_the_same_masks(
    name: str,
    predictor: GleSamPredictor,
    oracle: Sam,
    scene: np.ndarray,
    assert_same_records: Callable[..., None],
) -> None:
    parameters = LOOSE | CASES[name]
    ours = GleSamMaskGenerator(predictor, **parameters).generate(scene)
    theirs = SamAutomaticMaskGenerator(oracle, **parameters).generate(scene)
    assert len(ours) >= 4
    assert_same_records(ours, theirs)


@pytest.mark.parametrize("name", ["small regions", "small regions of crops"])
def test_small_regions_are_there_to_remove(
    name: str, predictor: GleSamPredictor, scene: np.ndarray
) -> None:
    parameters = LOOSE | CASES[name]
    areas = [
        {record["area"] for record in GleSamMaskGenerator(predictor, **kept).generate(scene)}
        for kept in (parameters, parameters | {"min_mask_region_area": 0})
    ]
    assert areas[0] != areas[1]


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_output_modes(
    mode: str,
    predictor: GleSamPredictor,
    oracle: Sam,
    scene: np.ndarray,
    assert_same_records: Callable[..., None],
) -> None:
    parameters = LOOSE | {"output_mode": mode}
    ours = GleSamMaskGenerator(predictor, **parameters).generate(scene)
    theirs = SamAutomaticMaskGenerator(oracle, **parameters).generate(scene)
    assert_same_records(ours, theirs)
    if mode != "binary_mask":
        assert json.loads(json.dumps(ours)) == ours
        by_point = {str(record["point_coords"]): record for record in theirs}
        assert any(
            record["segmentation"] == by_point[str(record["point_coords"])]["segmentation"]
            for record in ours
        )


def test_nothing_found_is_an_empty_list(predictor: GleSamPredictor, scene: np.ndarray) -> None:
    for layers in (0, 1):
        generator = GleSamMaskGenerator(predictor, 3, pred_iou_thresh=1.0, crop_n_layers=layers)
        assert generator.generate(scene) == []
    assert not predictor.is_image_set


def test_an_empty_mask_has_no_stability_and_no_area(
    predictor: GleSamPredictor, monkeypatch: pytest.MonkeyPatch, scene: np.ndarray
) -> None:
    """Check that stability is 0, where segment_anything returns NaN, which JSON cannot hold."""

    def decode(batch: Any) -> tuple[np.ndarray, np.ndarray]:
        low_res = np.full((batch.size, 3, 16, 16), -9, np.float32)
        return low_res, np.full((batch.size, 3), 0.9, np.float32)

    monkeypatch.setattr(predictor, "decode", decode)
    keep_all = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "min_mask_region_area": 9}
    records = GleSamMaskGenerator(predictor, 2, **keep_all).generate(scene)
    assert len(records) == 12  # boxes without area are no duplicates
    for record in records:
        assert (record["area"], record["stability_score"]) == (0, 0)
        assert record["bbox"] == [0, 0, 0, 0]
        assert not record["segmentation"].any()
    assert GleSamMaskGenerator(predictor, 2, pred_iou_thresh=0).generate(scene) == []


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (1, 300)])
def test_images_of_a_few_pixels(size: tuple[int, int], predictor: GleSamPredictor) -> None:
    image = np.full((*size, 3), 90, np.uint8)
    for record in GleSamMaskGenerator(predictor, **LOOSE).generate(image):
        assert record["segmentation"].shape == size
    with pytest.raises(InputError, match="too small for"):
        GleSamMaskGenerator(predictor, 4, crop_n_layers=9).generate(image)


@pytest.mark.parametrize("image", [None, np.zeros((9, 9)), np.zeros((9, 0, 3), np.uint8)])
def test_not_an_image(image: Any, predictor: GleSamPredictor) -> None:
    with pytest.raises(InputError, match="image: "):
        GleSamMaskGenerator(predictor).generate(image)


def test_masks_wait_as_runs(predictor: GleSamPredictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check by the peak memory that a hundred masks of six megapixels never exist at once."""

    def decode(batch: Any) -> tuple[np.ndarray, np.ndarray]:
        low_res = np.full((batch.size, 3, 16, 16), -9, np.float32)
        low_res[..., 4:9, 4:9] = 9
        return low_res, np.full((batch.size, 3), 0.9, np.float32)

    monkeypatch.setattr(predictor, "decode", decode)
    image = np.zeros((2000, 3000, 3), np.uint8)
    generator = GleSamMaskGenerator(
        predictor, 6, box_nms_thresh=1, stability_score_thresh=0, output_mode="coco_rle"
    )
    tracemalloc.start()
    records = generator.generate(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(records) == 108
    assert peak < 10 * 2000 * 3000
