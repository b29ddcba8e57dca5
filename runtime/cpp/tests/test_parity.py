"""The C++ library gives the encoder the same bytes, and makes the same masks, as Python does."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cases import Case, random_case
from pycocotools import mask as mask_utils
from safetensors.numpy import load_file, save_file

from glesam_runtime import GleSamPredictor, masks
from glesam_runtime.compare import mask_iou
from glesam_runtime.image import preprocess

COUNT = {"nano": 100, "nano2": 50, "nano_released": 50, "nano_bf16": 25}
AT_A_TIME = 25
SANITIZED = bool(os.environ["GLESAM_CPP_FLAGS"])
"""What a sanitizer looks for has been met after one batch of each; the figures are the same."""
UPSCALING = 1e-5
EPSILON = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module", params=list(COUNT))
def bundle(request: pytest.FixtureRequest) -> Path:
    """Return bundles with the preprocessing of SAM, SAM 2 and the released GleSAM, and in bf16."""
    if request.param == "nano_bf16" and os.environ["GLESAM_CPP_BACKENDS"] != "openvino":
        pytest.skip("ONNX Runtime's CPU has no kernels of that precision")
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """Return the number of images for a bundle."""
    return AT_A_TIME if SANITIZED else COUNT[request.node.callspec.params["bundle"]]


def test_random_images(
    bundle: Path, count: int, backend: list[str], programs: Path, tmp_path: Path
) -> None:
    predictor = GleSamPredictor(bundle, backend=backend[0])
    side = predictor.bundle.manifest.preprocessing.image_size // 4
    worst_iou = 1.0
    for begin in range(0, count, AT_A_TIME):
        cases = [random_case(begin + i, side) for i in range(AT_A_TIME)]
        given = {
            name: np.ascontiguousarray(value)
            for i, case in enumerate(cases)
            for name, value in case.tensors(str(i)).items()
        }
        save_file(given, tmp_path / "cases.safetensors")
        files = [str(tmp_path / f"{name}.safetensors") for name in ("cases", "results")]
        subprocess.run([programs / "run_cases", bundle, *files, *backend], check=True)
        results = load_file(files[1])
        for i, case in enumerate(cases):
            found = {name: results[f"{i}.{name}"] for name in _OUTPUTS}
            worst_iou = min(worst_iou, _compare(predictor, case, found))
            _check_forms({name: results[f"{i}.{name}"] for name in _FORMS})
    print(f"{count} images, worst mask IoU {worst_iou}")


_OUTPUTS = ("tensor", "masks", "logits", "scores", "stability", "low_res")
_FORMS = ("masks", "packed", "areas", "boxes", "rle")


def _check_forms(found: dict[str, np.ndarray]) -> None:
    """Compare the other forms of masks with numpy's and pycocotools', made from the masks."""
    masks_ = found["masks"]
    np.testing.assert_array_equal(found["packed"], np.packbits(masks_, axis=-1))
    flat = masks_.reshape(-1, *masks_.shape[-2:])
    coco = [mask_utils.encode(np.asfortranarray(mask)) for mask in flat]
    assert found["rle"].tobytes().split(b"\n")[:-1] == [each["counts"] for each in coco]
    shape = masks_.shape[:2]
    np.testing.assert_array_equal(found["areas"], mask_utils.area(coco).reshape(shape))
    np.testing.assert_array_equal(found["boxes"], mask_utils.toBbox(coco).reshape(*shape, 4))


def _compare(predictor: GleSamPredictor, case: Case, found: dict[str, np.ndarray]) -> float:
    """Compare the results of a case with Python's, and return the lowest IoU of its masks."""
    rules = predictor.bundle.manifest
    tensor = preprocess(case.image, rules.preprocessing).tensor
    np.testing.assert_array_equal(found["tensor"].view(np.uint32), tensor.view(np.uint32))

    predictor.set_image(case.image)
    raw, scores, low_res = predictor.predict(
        **case.prompts, multimask_output=case.multimask, return_logits=True
    )
    if len(next(iter(case.prompts.values()))) == 1:  # Python leaves out the axis of one prompt
        raw, scores, low_res = raw[None], scores[None], low_res[None]
    np.testing.assert_allclose(found["scores"], scores, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["low_res"], low_res, rtol=1e-5, atol=1e-5)
    scale = max(1.0, float(np.abs(raw).max()))
    assert np.abs(found["logits"] - raw).max() <= UPSCALING * scale
    stability = masks.binarize(low_res, predictor.geometry, rules.postprocessing).stability
    np.testing.assert_allclose(found["stability"], stability, rtol=0, atol=1e-3)

    made = raw > rules.postprocessing.mask_threshold
    # A logit below the rounding of the sum that it comes from has no sign of its own.
    sure = (np.abs(raw) > EPSILON * scale).reshape(-1, *made.shape[-2:])
    worst = 1.0
    pairs = (each.reshape(sure.shape) for each in (found["masks"].astype(bool), made))
    for mine, theirs, known in zip(*pairs, sure, strict=True):
        iou = mask_iou(mine & known, theirs & known)
        assert iou >= 0.9999
        worst = min(worst, iou)
    return worst
