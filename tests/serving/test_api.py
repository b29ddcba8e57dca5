"""Every endpoint, with the predictor of this process as the oracle."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image
from pycocotools import mask as coco

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor
from glesam_runtime.backends.base import ForwardingEngine
from glesam_runtime.demo import sample_image
from glesam_serving import Client

POINTS = [[245, 300], [290, 355]]
LABELS = [1, 0]
BOX = [350, 213, 441, 323]


@pytest.fixture(scope="module")
def http(server):
    with server.http() as client:
        yield client


@pytest.fixture(scope="module")
def image_id(http: httpx.Client, make_png) -> str:
    answer = http.post("/v1/images", content=make_png(sample_image()))
    assert answer.status_code == 201
    return answer.json()["image_id"]


@pytest.fixture
def oracle(predictor: GleSamPredictor) -> GleSamPredictor:
    predictor.set_image(sample_image())
    return predictor


def decoded(mask: dict) -> np.ndarray:
    return coco.decode(mask["rle"]).astype(bool)


def segment(http: httpx.Client, image_id: str, *prompts: dict, **options: object) -> list[dict]:
    answer = http.post(f"/v1/images/{image_id}/segment", json={"prompts": list(prompts), **options})
    assert answer.status_code == 200, answer.text
    return answer.json()["masks"]


def test_an_image_is_encoded_once(http: httpx.Client, make_picture, make_png) -> None:
    content = make_png(make_picture(1))
    first = http.post("/v1/images", content=content)
    form = http.post("/v1/images", files={"image": ("any/../name.png", content)})
    plain = http.post("/v1/images?enhance=false", content=content)
    assert (first.status_code, form.status_code, plain.status_code) == (201, 200, 201)
    assert first.json()["image_id"] == form.json()["image_id"] != plain.json()["image_id"]
    assert (form.json()["cached"], plain.json()["enhanced"]) == (True, False)
    assert (first.json()["width"], first.json()["height"]) == (96, 72)
    assert set(first.json()["seconds"]) == {"queue", "read", "preprocess", "encoder", "enhancer"}
    place = first.headers["Location"]
    assert http.get(place).json()["image_id"] == first.json()["image_id"]
    assert http.delete(place).status_code == 204
    assert [http.get(place).status_code, http.delete(place).status_code] == [404, 404]


def test_the_exif_orientation_is_applied(http: httpx.Client, make_picture) -> None:
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(make_picture(2)).save(file, "JPEG", exif=exif)
    answer = http.post("/v1/images", content=file.getvalue()).json()
    assert (answer["width"], answer["height"]) == (72, 96)
    assert (answer["stored_width"], answer["stored_height"]) == (96, 72)


@pytest.mark.parametrize("multimask", [False, True])
def test_masks_are_those_of_the_predictor(
    http: httpx.Client, image_id: str, oracle: GleSamPredictor, multimask: bool
) -> None:
    found = segment(
        http,
        image_id,
        {"points": POINTS, "labels": LABELS},
        {"box": BOX},
        {"points": [[245, 300, 1]]},
        multimask=multimask,
    )
    expected = [
        oracle.predict(POINTS, LABELS, multimask_output=multimask),
        oracle.predict(box=BOX, multimask_output=multimask),
        oracle.predict([[245, 300]], [1], multimask_output=multimask),
    ]
    masks = np.concatenate([each[0] for each in expected])
    scores = np.concatenate([each[1] for each in expected])
    assert [mask["prompt"] for mask in found] == sorted([0, 1, 2] * (3 if multimask else 1))
    for mask, want, score in zip(found, masks, scores, strict=True):
        np.testing.assert_array_equal(decoded(mask), want)
        assert np.float32(mask["predicted_iou"]) == score
        assert mask["area"] == want.sum()
        x, y, width, height = coco.toBbox(mask["rle"])
        assert mask["box"] == [x, y, x + width, y + height]


def test_an_earlier_mask_is_refined_by_its_name(
    http: httpx.Client, image_id: str, oracle: GleSamPredictor
) -> None:
    (first,) = segment(http, image_id, {"points": POINTS[:1]})
    (both,) = segment(http, image_id, {"points": POINTS[:1], "mask_from": first["id"]})
    (alone,) = segment(http, image_id, {"mask_from": first["id"]})
    _, _, low_res = oracle.predict(POINTS[:1], [1], multimask_output=False)
    for found, prompt in ((both, (POINTS[:1], [1])), (alone, ())):
        masks, _, _ = oracle.predict(*prompt, mask_input=low_res, multimask_output=False)
        np.testing.assert_array_equal(decoded(found), masks[0])


def test_a_threshold_changes_the_mask(
    http: httpx.Client, image_id: str, oracle: GleSamPredictor
) -> None:
    (found,) = segment(http, image_id, {"box": BOX}, threshold=2.5)
    logits, _, _ = oracle.predict(box=BOX, multimask_output=False, return_logits=True)
    np.testing.assert_array_equal(decoded(found), logits[0] > 2.5)


def test_polygons_fill_to_the_mask(http: httpx.Client, image_id: str) -> None:
    """The oracle fills each ring by itself; even-odd is their exclusive or."""
    for mask in segment(
        http, image_id, {"points": POINTS[:1]}, {"box": [0, 0, 512, 384]}, polygons=True
    ):
        y, x = np.mgrid[0:384, 0:512] + 0.5
        centres = np.stack([x.ravel(), y.ravel()], axis=1)
        filled = np.zeros(384 * 512, bool)
        for ring in mask["polygons"]:
            filled ^= Outline([*ring, ring[0]], closed=True).contains_points(centres)
        np.testing.assert_array_equal(filled.reshape(384, 512), decoded(mask))


def test_a_png_is_the_best_mask(http: httpx.Client, image_id: str, oracle: GleSamPredictor) -> None:
    answer = http.post(
        f"/v1/images/{image_id}/segment",
        json={"prompts": [{"box": BOX}], "multimask": True},
        headers={"Accept": "image/png"},
    )
    masks, scores, _ = oracle.predict(box=BOX)
    best = scores.argmax()
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(pixels, masks[best] * np.uint8(255))
    assert np.float32(answer.headers["X-GleSAM-Predicted-IoU"]) == scores[best]


def test_image_and_prompts_in_one_call(
    http: httpx.Client, predictor: GleSamPredictor, make_picture, make_png
) -> None:
    pixels = make_picture(3)
    answer = http.post(
        "/v1/segment",
        files={
            "image": make_png(pixels),
            "request": json.dumps({"prompts": [{"points": [[40, 30]]}]}),
        },
    )
    predictor.set_image(pixels)
    masks, _, _ = predictor.predict([[40, 30]], [1], multimask_output=False)
    np.testing.assert_array_equal(decoded(answer.json()["masks"][0]), masks[0])


def test_everything_streams_progress_and_the_generator_s_masks(
    http: httpx.Client, image_id: str, predictor: GleSamPredictor
) -> None:
    given = {"points_per_side": 3, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}
    answer = http.post(f"/v1/images/{image_id}/everything", json=given)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["progress"] for line in lines if "progress" in line][-1] == 1
    masks = [line["mask"] for line in lines if "mask" in line]
    assert lines[-1]["masks"] == len(masks) > 0
    expected = GleSamMaskGenerator(predictor, points_per_batch=8, **given).generate(sample_image())
    for mask, want in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(decoded(mask), want["segmentation"])
        assert mask["points"] == want["point_coords"]


@pytest.mark.parametrize("enhance", [True, False])
def test_everything_is_that_of_glesam_run_and_encodes_only_crops(
    start, tmp_path, enhance: bool
) -> None:
    runs: list[str] = []

    def change(model) -> None:
        engine = model._searcher.engine
        model._searcher = model._searcher.with_engine(_Counted(engine, runs))

    given = {"points_per_side": 3, "pred_iou_thresh": 0.5, "stability_score_thresh": 0.5}
    given["crop_n_layers"] = 1  # four crops beside the whole image
    file = tmp_path / "sample.png"
    Image.fromarray(sample_image()).save(file)
    with start(change=change).http() as http:
        asked = {"enhance": str(enhance).lower()}
        image = http.post("/v1/images", content=file.read_bytes(), params=asked).json()
        answer = http.post(f"/v1/images/{image['image_id']}/everything", json=given)
    masks = [line["mask"] for line in map(json.loads, answer.text.splitlines()) if "mask" in line]
    assert runs.count("encoder") == 4
    assert runs.count("enhancer") == 4 * enhance

    options = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    options += ["--backend", "onnxruntime", "--json", "-o", str(tmp_path)]
    options += [] if enhance else ["--no-enhance"]
    code = "from glesam_runtime.cli import main; main()"
    command = [sys.executable, "-c", code, str(file), "--everything", *options]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    expected = told["images"][0]["masks"]
    assert len(masks) == len(expected) > 0
    for mask, want in zip(masks, expected, strict=True):
        assert mask["rle"] == want["rle"]
        assert mask["points"] == want["points"]
        assert round(mask["predicted_iou"], 6) == want["predicted_iou"]


@dataclass(frozen=True)
class _Counted(ForwardingEngine):
    """An engine that records the stages that it runs."""

    runs: list[str]

    def run(self, stage, inputs):
        self.runs.append(stage)
        return super().run(stage, inputs)


def test_a_degraded_image_is_that_of_the_evaluation_package(
    http: httpx.Client, image_id: str
) -> None:
    from glesam_evaluation.degrade import apply_recipe, sample_recipe

    answer = http.post(f"/v1/images/{image_id}/degrade", json={"level": 3, "seed": 7})
    expected = apply_recipe(sample_image(), sample_recipe(3, 7))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(answer.content))), expected)


@pytest.mark.parametrize(("dtype", "code"), [("float32", "<f4"), ("float16", "<f2")])
def test_the_embedding_is_raw_bytes(
    http: httpx.Client, image_id: str, oracle: GleSamPredictor, dtype: str, code: str
) -> None:
    answer = http.get(f"/v1/images/{image_id}/embedding?dtype={dtype}")
    shape = [int(size) for size in answer.headers["X-GleSAM-Shape"].split(",")]
    found = np.frombuffer(answer.content, code).reshape(shape)
    np.testing.assert_array_equal(found, oracle.get_image_embedding().astype(code))
    assert answer.headers["X-GleSAM-Bundle-SHA256"] == oracle.bundle.sha256


def test_what_describes_the_server(http: httpx.Client, image_id: str) -> None:
    bundle = http.get("/v1/bundle").json()
    assert bundle["features"] == {"enhance": True, "degrade": True}
    assert "path" not in bundle
    document = http.get("/openapi.json").json()
    assert "/v1/images/{image_id}/segment" in document["paths"]
    assert "mask_from" in document["components"]["schemas"]["Prompt"]["properties"]
    page = http.get("/docs").text
    assert "/v1/segment" in page
    assert "http://" not in page
    assert "https://" not in page
    assert http.get("/v1/sample").headers["content-type"] == "image/jpeg"
    segment(http, image_id, {"box": BOX})
    metrics = http.get("/metrics").text
    for name in (
        'glesam_stage_seconds_count{stage="decoder"}',
        'endpoint="/v1/images/{image_id}/segment",status="200"',
        "glesam_cache_bytes",
        "glesam_cache_hits_total",
    ):
        assert name in metrics


def test_the_client_is_used_as_the_predictor(
    server, http: httpx.Client, predictor: GleSamPredictor, make_picture
) -> None:
    pixels = make_picture(4)
    predictor.set_image(pixels)
    box = [[10, 10, 40, 40], [30, 20, 80, 60]]
    with Client(server.url) as client:
        client.set_image(pixels[..., ::-1], "BGR")
        http.delete(f"/v1/images/{client.image.image_id}")  # predict sends the image again
        for arguments in (
            {"point_coords": [[40, 30]], "point_labels": [1]},
            {"box": np.asarray(box)},
            {"box": box[0], "multimask_output": False, "return_logits": True},
            {"box": box[:1]},
            {"point_coords": [[40, 30]], "point_labels": [1], "box": box[:1]},
            {"box": np.zeros((0, 4))},
            {"box": np.zeros((0, 4)), "multimask_output": False, "return_logits": True},
            {"point_coords": [[40, 30], [0, 0]], "point_labels": [1, -1]},
            {"point_coords": [[96, 72]], "point_labels": [1]},
        ):
            expected = predictor.predict(**arguments)
            for found, want in zip(client.predict(**arguments), expected, strict=True):
                np.testing.assert_array_equal(found, want)
                assert found.dtype == want.dtype
        _, _, low_res = predictor.predict(box=box[0], multimask_output=False)
        client.predict(box=box[0], multimask_output=False)
        want = predictor.predict([[40, 30]], [1], mask_input=low_res, multimask_output=False)
        for mask_input in (client.answer.masks[0].id, low_res):
            found = client.predict([[40, 30]], [1], mask_input=mask_input, multimask_output=False)
            np.testing.assert_array_equal(found[0], want[0])
        np.testing.assert_array_equal(client.embedding(), predictor.get_image_embedding())
        progress = list(client.everything(points_per_side=1))
        assert progress[-1]["done"]
