"""Programs written for segment_anything give the same on our predictor as on SamPredictor.

`make test-clients` installs them and runs these tests. Both predictors have the weights of the
built-in nano, without the enhancer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor, sample_image
from glesam_runtime.compare import mask_iou

if TYPE_CHECKING:
    from segment_anything import SamAutomaticMaskGenerator
    from segment_anything.modeling import Sam

pytestmark = pytest.mark.clients

SETTINGS: dict[str, Any] = {
    "points_per_side": 8,
    "pred_iou_thresh": 0.5,
    "stability_score_thresh": 0.5,
}
SAME = 0.999
WEST, NORTH, PIXEL = 1_000_000.0, 6_000_000.0, 2.0
"""Web Mercator's metres of the left upper corner and of a pixel."""


@pytest.fixture(scope="module")
def sam() -> Sam:
    """Return segment_anything's model with the weights of the built-in nano."""
    from glesam_export.families.sam.reference import build_sam
    from glesam_export.weight_options import WeightOptions
    from glesam_export.weights import make_checkpoint

    checkpoint = make_checkpoint(WeightOptions("nano", None, *(None,) * 7))
    decoder = checkpoint.decoder()
    return build_sam(checkpoint.encoder(), decoder.prompt_encoder, decoder.mask_decoder)


@pytest.fixture(scope="module")
def predictor() -> GleSamPredictor:
    return GleSamPredictor(enhance=False)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return sample_image()


@pytest.fixture(scope="module")
def ours(predictor: GleSamPredictor) -> GleSamMaskGenerator:
    return GleSamMaskGenerator(predictor, **SETTINGS)


@pytest.fixture(scope="module")
def theirs(sam: Sam) -> SamAutomaticMaskGenerator:
    from segment_anything import SamAutomaticMaskGenerator

    return SamAutomaticMaskGenerator(sam, **SETTINGS)


def assert_same_detections(mine: Any, reference: Any) -> None:
    """Match supervision's detections one to one; masks of equal area may change places."""
    assert len(mine) == len(reference) >= 5
    left = list(range(len(reference)))
    for box, mask in zip(mine.xyxy, mine.mask, strict=True):
        iou = [mask_iou(mask, reference.mask[index]) for index in left]
        match = left.pop(int(np.argmax(iou)))
        assert max(iou) >= SAME
        np.testing.assert_allclose(box, reference.xyxy[match], atol=1)


@pytest.mark.parametrize("layers", [0, 1])
def test_segment_anythings_generator_on_our_predictor(
    layers: int,
    sam: Sam,
    predictor: GleSamPredictor,
    image: np.ndarray,
    assert_same_records: Callable[..., None],
) -> None:
    from segment_anything import SamAutomaticMaskGenerator

    mixed, whole = (
        SamAutomaticMaskGenerator(sam, **SETTINGS, crop_n_layers=layers) for _ in range(2)
    )
    mixed.predictor = predictor
    mine, reference = mixed.generate(image), whole.generate(image)
    assert len(reference) >= 5
    assert_same_records(mine, reference)


@pytest.mark.parametrize("mode", ["binary_mask", "uncompressed_rle", "coco_rle"])
def test_supervision(
    mode: str,
    ours: GleSamMaskGenerator,
    theirs: SamAutomaticMaskGenerator,
    predictor: GleSamPredictor,
    image: np.ndarray,
) -> None:
    import supervision

    generator = GleSamMaskGenerator(predictor, **SETTINGS, output_mode=mode)
    assert_same_detections(
        supervision.Detections.from_sam(generator.generate(image)),
        supervision.Detections.from_sam(theirs.generate(image)),
    )
    assert len(supervision.Detections.from_sam(ours.generate(np.zeros_like(image)))) == len(
        supervision.Detections.from_sam(theirs.generate(np.zeros_like(image)))
    )


def test_autodistill(
    ours: GleSamMaskGenerator,
    theirs: SamAutomaticMaskGenerator,
    image: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The package imports a client of a dataset service, and a loader that needs Grounding DINO. It
    # uses neither: it defines its own `load_SAM`, which downloads ViT-H.
    for name in ("roboflow", "autodistill_grounded_sam", "autodistill_grounded_sam.helpers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    helpers = sys.modules["autodistill_grounded_sam.helpers"]
    monkeypatch.setattr(helpers, "load_SAM", None, raising=False)
    from autodistill.detection import CaptionOntology
    from autodistill_segment_anything import SegmentAnything, sam_model

    path = tmp_path / "sample.png"
    Image.fromarray(image).save(path)
    found = []
    for generator in (ours, theirs):
        monkeypatch.setattr(sam_model, "load_SAM", lambda generator=generator: generator)
        found.append(SegmentAnything(CaptionOntology({"thing": "thing"})).predict(str(path)))
    assert_same_detections(*found)


@pytest.fixture
def geo(
    sam: Sam,
    predictor: GleSamPredictor,
    image: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[Any, Any]:
    """Return two SamGeo with a GeoTIFF set, one on our predictor."""
    import rasterio
    import samgeo.samgeo
    from rasterio.transform import from_origin

    source, weights = tmp_path / "sample.tif", tmp_path / "unused.pth"
    weights.touch()
    profile = {
        "driver": "GTiff",
        "height": image.shape[0],
        "width": image.shape[1],
        "count": 3,
        "dtype": "uint8",
        "crs": "EPSG:3857",
        "transform": from_origin(WEST, NORTH, PIXEL, PIXEL),
    }
    with rasterio.open(source, "w", **profile) as file:
        file.write(image.transpose(2, 0, 1))
    monkeypatch.setitem(samgeo.samgeo.sam_model_registry, "vit_b", lambda checkpoint: sam)
    made = [
        samgeo.samgeo.SamGeo("vit_b", automatic=False, device="cpu", checkpoint=str(weights))
        for _ in range(2)
    ]
    made[0].predictor = predictor
    for each in made:
        each.set_image(str(source))
    return made[0], made[1]


def assert_same_predictions(mine: Any, reference: Any) -> None:
    """Compare masks, scores and logits of two predictions: arrays or torch tensors."""
    assert [type(each) for each in mine] == [type(each) for each in reference]
    assert [each.shape for each in mine] == [each.shape for each in reference]
    for array, expected in zip(mine[1:], reference[1:], strict=True):
        np.testing.assert_allclose(np.asarray(array), np.asarray(expected), atol=2e-3, rtol=1e-3)
    assert mask_iou(np.asarray(mine[0]), np.asarray(reference[0])) >= SAME


def test_samgeo_with_several_boxes(geo: tuple[Any, Any], tmp_path: Path) -> None:
    """Give boxes on the map, which samgeo turns into tensors for `predict_torch`."""
    import rasterio
    from rasterio.warp import transform_bounds

    boxes = []
    for x0, y0, x1, y1 in ((350, 213, 441, 323), (120, 4, 174, 78), (20, 30, 300, 200)):
        bounds = (
            WEST + x0 * PIXEL,
            NORTH - y1 * PIXEL,
            WEST + x1 * PIXEL,
            NORTH - y0 * PIXEL,
        )
        boxes.append(list(transform_bounds("EPSG:3857", "EPSG:4326", *bounds)))
    predictions, rasters = [], []
    for index, each in enumerate(geo):
        output = tmp_path / f"{index}.tif"
        predictions.append(
            each.predict(
                boxes=boxes, point_crs="EPSG:4326", output=str(output), return_results=True
            )
        )
        with rasterio.open(output) as file:
            rasters.append(file.read())
    assert predictions[1][0].shape[:2] == (3, 3)
    assert_same_predictions(*predictions)
    assert 0 < (rasters[1] > 0).mean() < 1
    assert mask_iou(rasters[0] > 0, rasters[1] > 0) >= SAME


@pytest.mark.parametrize(
    "prompt",
    [
        {"boxes": [[350, 213, 441, 323]]},
        {"boxes": [350.0, 213.0, 441.0, 323.0]},
        {"point_coords": [[445, 135]]},
        {"point_coords": [[445, 135], [120, 60]], "point_labels": [1, 0]},
        {"point_coords": [[395, 260]], "boxes": [[350, 213, 441, 323]]},
        {"point_coords": [[395, 260]], "multimask_output": False, "return_logits": True},
    ],
)
def test_samgeo_with_one_prompt(prompt: dict[str, Any], geo: tuple[Any, Any]) -> None:
    mine, reference = (each.predict(**prompt, return_results=True) for each in geo)
    if prompt.get("return_logits"):
        np.testing.assert_allclose(mine[0], reference[0], atol=2e-3, rtol=1e-3)
        mine, reference = ((each[0] > 0, *each[1:]) for each in (mine, reference))
    assert_same_predictions(mine, reference)
