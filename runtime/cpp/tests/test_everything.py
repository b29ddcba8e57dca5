"""Everything-mode and polygons of the C++ library are those of Python, in every pixel."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor
from glesam_runtime.demo import sample_image
from glesam_runtime.errors import InputError
from glesam_runtime.rle import decode_rle
from glesam_serving.server.polygons import polygons_of

CASES: list[dict[str, Any]] = [
    {"points_per_side": 8},
    {"points_per_side": 6, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    {
        "points_per_side": 5,
        "pred_iou_thresh": 0,
        "stability_score_thresh": 0.3,
        "stability_score_offset": 0.5,
        "box_nms_thresh": 0.5,
        "min_mask_region_area": 60,
        "points_per_batch": 7,
    },
    {
        "points_per_side": 3,
        "crop_n_layers": 2,
        "crop_overlap_ratio": 0.1,
        "crop_nms_thresh": 0.4,
        "pred_iou_thresh": 0.3,
        "stability_score_thresh": 0,
        "min_mask_region_area": 2000,
    },
]


@pytest.fixture(scope="module")
def predictor(nano: Path) -> GleSamPredictor:
    """Return the Python predictor."""
    return GleSamPredictor(nano, backend="openvino")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Return the sample picture in odd sizes, uint8 [H, W, 3]."""
    return np.asarray(Image.fromarray(sample_image()).resize((321, 243)))


@pytest.fixture
def given(image: np.ndarray, nano: Path, tmp_path: Path) -> list[str]:
    """Return the first arguments of the program."""
    (tmp_path / "image.rgb").write_bytes(image.tobytes())
    height, width = image.shape[:2]
    return [str(nano), str(tmp_path / "image.rgb"), str(width), str(height)]


@pytest.mark.parametrize("case", CASES)
def test_records(
    case: dict[str, Any],
    predictor: GleSamPredictor,
    image: np.ndarray,
    given: list[str],
    programs: Path,
) -> None:
    generator = GleSamMaskGenerator(predictor, output_mode="coco_rle", **case)
    expected = generator.generate(image)
    options = [f"{name}={value}" for name, value in case.items()]
    done = subprocess.run(
        [programs / "everything", *given, *options], capture_output=True, text=True, check=True
    )
    records = [line.split(" ") for line in done.stdout.splitlines()]
    assert len(records) == len(expected) > 3
    for record, wanted in zip(records, expected, strict=True):
        assert record[0] == wanted["segmentation"]["counts"]
        assert int(record[1]) == wanted["area"]
        assert [int(value) for value in record[2:6]] == wanted["bbox"]
        assert [int(value) for value in record[6:10]] == wanted["crop_box"]
        assert float(record[10]) == wanted["predicted_iou"]
        assert float(record[11]) == wanted["stability_score"]
        assert [[float(value) for value in record[12:14]]] == wanted["point_coords"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"points_per_side": 0},
        {"pred_iou_thresh": 1.5},
        {"stability_score_offset": -1},
        {"crop_overlap_ratio": 1},
        {"points_per_side": 2, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
        {"crop_n_layers": 9, "points_per_side": 1},
    ],
)
def test_errors(
    wrong: dict[str, Any],
    predictor: GleSamPredictor,
    image: np.ndarray,
    given: list[str],
    programs: Path,
) -> None:
    with pytest.raises(InputError) as refused:
        GleSamMaskGenerator(predictor, **wrong).generate(image)
    options = [f"{name}={value}" for name, value in wrong.items()]
    command = [programs / "everything", *given, *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"{refused.value}\n")


def test_polygons(given: list[str], programs: Path, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    for box in ((40, 30, 200, 180), (0, 0, 320, 242), (100, 100, 130, 125)):
        done = subprocess.run(
            [programs / "everything", "--polygons", *given, *map(str, box)],
            capture_output=True,
            text=True,
            check=True,
        )
        counts, *lines = done.stdout.splitlines()
        mask = decode_rle({"size": [height, width], "counts": counts})
        rings = [np.array(line.split(), float).reshape(-1, 2).tolist() for line in lines]
        assert rings == polygons_of(mask)
        assert rings
