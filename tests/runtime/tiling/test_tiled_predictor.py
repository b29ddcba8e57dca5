"""The tiled predictor gives the predictor's masks where one tile shows all, and routes the rest."""

from __future__ import annotations

import json
from copy import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_evaluation.scenes import make_scene
from glesam_runtime import GleSamPredictor, InputError, TiledPredictor
from glesam_runtime.console import exit_code_of
from glesam_runtime.everything.parameters import Parameters
from glesam_runtime.image import geometry_of
from glesam_runtime.prompts import PromptBatch
from glesam_runtime.rle import decode_rle
from glesam_runtime.tiling import search as tiling_search
from glesam_runtime.tiling.windows import ArrayWindows


@pytest.fixture(scope="module")
def predictor() -> GleSamPredictor:
    return GleSamPredictor(backend="onnxruntime")


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return make_scene(5, 300, 420, shapes=(10, 12)).image


class Counted(ArrayWindows):
    """Parts of an array, which remembers what was read."""

    def __init__(self, image: np.ndarray) -> None:
        super().__init__(image)
        object.__setattr__(self, "boxes", [])

    def read(self, box: tuple[int, int, int, int]) -> np.ndarray:
        self.boxes.append(box)  # type: ignore[attr-defined]
        return super().read(box)


def test_one_tile_over_the_picture_gives_the_predictor_s_masks(
    predictor: GleSamPredictor, scene: np.ndarray
) -> None:
    tiled = TiledPredictor(predictor, 512, 64)
    tiled.set_image(scene)
    points, box = np.array([[[100.0, 90.0]], [[300.0, 200.0]]]), [150, 60, 330, 230]
    records = [
        *tiled.predict(points, [[1], [1]], multimask_output=True),
        *tiled.predict(box=box),
    ]
    assert not predictor.is_image_set
    predictor.set_image(scene)
    masks, scores, _ = predictor.predict(points, [[1], [1]])
    boxed, box_scores, _ = predictor.predict(box=box, multimask_output=False)
    for record, found, score in zip(records, [*masks, boxed], [*scores, box_scores], strict=True):
        order = np.argsort(-score, kind="stable")
        assert [one["predicted_iou"] for one in record] == pytest.approx(score[order].tolist())
        for one, index in zip(record, order, strict=True):
            assert np.array_equal(decode_rle(one["segmentation"]), found[index])
            assert one["area"] == np.count_nonzero(found[index])
            assert one["crop_box"] == [0, 0, 420, 300]


def test_a_prompt_is_looked_at_in_its_tile(predictor: GleSamPredictor, scene: np.ndarray) -> None:
    tiled = TiledPredictor(predictor, 256, 64)
    windows = Counted(scene)
    tiled.set_image(windows)
    tiled.predict([[[30.0, 30.0]], [[50.0, 40.0]]], [[1], [1]])
    assert windows.boxes[0] == (0, 0, 256, 256)  # type: ignore[attr-defined]
    (record,) = tiled.predict(box=[0, 0, 420, 300])[0]
    assert record["crop_box"] == [0, 0, 420, 300]
    assert max(x1 - x0 for x0, _, x1, _ in windows.boxes) == 420  # type: ignore[attr-defined]


@pytest.fixture
def bright(predictor: GleSamPredictor) -> GleSamPredictor:
    """Return a predictor whose mask of any prompt is what is bright in the image."""
    made = copy(predictor)
    shown: list[np.ndarray] = []

    def set_image(image: np.ndarray) -> None:
        shown[:] = [image]
        made.set_features(geometry_of(*image.shape[:2], 256), {})

    def decode(prompts: PromptBatch, multimask_output: bool = True) -> tuple[np.ndarray, ...]:
        height, width = (side // 4 for side in made.geometry.resized)
        small = Image.fromarray(shown[0][..., 0]).resize((width, height), Image.Resampling.BOX)
        logits = np.full((64, 64), -10, np.float32)
        logits[:height, :width] = (np.asarray(small, np.float32) - 128) / 8
        count = 3 if multimask_output else 1
        shape = (prompts.size, count, 64, 64)
        return np.broadcast_to(logits, shape), np.full(shape[:2], 0.9, np.float32)

    made.set_image, made.decode = set_image, decode  # type: ignore[method-assign,assignment]
    return made


def disc(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a bright disc in the middle of 600 x 800 pixels, and its mask."""
    rows, columns = np.mgrid[:600, :800]
    mask = np.hypot(columns - 400, rows - 300) < radius
    return np.where(mask[..., None], np.uint8(220), np.uint8(30)).repeat(3, axis=2), mask


def test_a_mask_that_reaches_a_border_is_looked_at_in_a_larger_window(
    bright: GleSamPredictor,
) -> None:
    """Prompt a disc that no tile holds, at a point whose tile shows a part of it."""
    image, truth = disc(240)
    tiled = TiledPredictor(bright, 256, 32)
    tiled.set_image(image)
    (record,) = tiled.predict([[400.0, 130.0]], [1])[0]
    assert max(record["crop_box"][2:]) > 480
    assert iou(decode_rle(record["segmentation"]), truth) > 0.97


def test_everything_finds_an_object_of_many_tiles_once(bright: GleSamPredictor) -> None:
    image, truth = disc(240)
    tiled = TiledPredictor(bright, 256, 32)
    tiled.set_image(image)
    keep_all = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    (record,) = tiled.generate(Parameters(points_per_side=1, **keep_all))
    assert iou(decode_rle(record["segmentation"]), truth) > 0.97


def test_everything_looks_again_where_one_tile_found_a_part(
    bright: GleSamPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let only the first tile find the disc: it is cut off there, and then found whole."""
    image, truth = disc(110)
    tiled = TiledPredictor(bright, 480, 64)
    tiled.set_image(image)
    search = tiling_search._search_tile
    monkeypatch.setattr(
        tiling_search,
        "_search_tile",
        lambda *args: search(*args) if args[1] == (0, 0) else [],
    )
    keep_all = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0}
    (record,) = tiled.generate(Parameters(points_per_side=1, **keep_all))
    assert iou(decode_rle(record["segmentation"]), truth) > 0.97


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


def test_wrong_calls_are_refused(predictor: GleSamPredictor, scene: np.ndarray) -> None:
    tiled = TiledPredictor(predictor, 256, 64)
    with pytest.raises(InputError, match="no picture is set"):
        tiled.predict([[1, 1]], [1])
    tiled.set_image(scene)
    for arguments, words in (
        ({"box": [500, 0, 600, 90]}, "outside the image of 420 x 300"),
        ({"point_coords": [[1, 1]], "point_labels": [-1]}, "give a point of label 1 or 0"),
    ):
        with pytest.raises(InputError, match=words):
            tiled.predict(**arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="tiles take the place of crops"):
        tiled.generate(Parameters(crop_n_layers=1))
    with pytest.raises(InputError, match="tile 10"):
        TiledPredictor(predictor, 10)


def run(*arguments: object) -> int:
    from glesam_runtime.cli import app

    return exit_code_of(app, "glesam-run", [*map(str, arguments), "--backend", "onnxruntime"])


def test_glesam_run_writes_what_it_prints(
    tmp_path: Path, scene: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(scene).save(tmp_path / "a.tif")
    tiles = ("--tile", 256, "--overlap", 64, "--json", "-o", tmp_path / "out")
    few = ("--points-per-side", 3, "--pred-iou-thresh", 0, "--stability-score-thresh", 0)
    prompts = ("--box", "20,20,200,180", "--box", "210,90,300,200")
    for options in (prompts, ("--everything", "--mask-files", *few)):
        assert run(tmp_path / "a.tif", *options, *tiles) == 0
        (image,) = json.loads(capsys.readouterr().out)["images"]
        assert (image["width"], image["height"]) == (420, 300)
        assert len(image["masks"]) >= 2
        for mask in image["masks"]:
            pixels = np.asarray(Image.open(mask["file"]))
            assert np.array_equal(pixels > 0, decode_rle(mask["rle"]))
            assert mask["area"] == np.count_nonzero(pixels)
        assert Image.open(image["overlay"]).size == (420, 300)
    values = set(np.unique(np.asarray(Image.open(image["instances"]))).tolist())
    assert values <= {0, *(mask["id"] for mask in image["masks"])}
    assert len(values) > 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--overlap", "9"), "--overlap requires --tile"),
        (("--tile", "10"), "tile 10: at least 64 pixels"),
        (("--tile", "128", "--overlap", "100"), "overlap 100: must be 0 to 64"),
        (("--tile", "128", "--everything", "--crop-n-layers", "1"), "--crop-n-layers: --tile"),
        (("--tile", "128", "--box", "0,0,999,999"), "extends too far beyond"),
    ],
)
def test_wrong_options_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], words: str
) -> None:
    Image.new("RGB", (200, 150)).save(tmp_path / "a.png")
    prompt = () if {"--everything", "--box"} & set(options) else ("--points", "1,1")
    assert run(tmp_path / "a.png", *options, *prompt, "-o", tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
