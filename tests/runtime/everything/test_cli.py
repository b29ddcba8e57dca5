"""`glesam-run --everything` writes the right files, streams and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor, console
from glesam_runtime.cli import app
from glesam_runtime.image_file import read_image

LOOSE = {
    "points_per_side": 5,
    "pred_iou_thresh": 0.3,
    "stability_score_thresh": 0.3,
    "stability_score_offset": 0.05,
}
OPTIONS = [
    text for name, value in LOOSE.items() for text in ("--" + name.replace("_", "-"), str(value))
]


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def image(tmp_path: Path, photo: np.ndarray) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    return path


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def mask_of(record: dict[str, Any]) -> np.ndarray:
    return coco.decode(record["rle"]) == 1


def test_json_is_the_generators_records(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = image.parent / "out"
    code, stdout, stderr = run_here(
        capsys, image, "--everything", *OPTIONS, "--json", "--bundle", toy_bundle, "-o", out
    )
    assert (code, stderr) == (0, "")
    assert written(out) == ["photo_instances.png", "photo_overlay.png"]
    (entry,) = json.loads(stdout)["images"]
    generator = GleSamMaskGenerator(GleSamPredictor(toy_bundle), **LOOSE, output_mode="coco_rle")
    expected = generator.generate(read_image(image))
    assert len(expected) > 3
    assert [mask["id"] for mask in entry["masks"]] == list(range(1, len(expected) + 1))
    for mask, record in zip(entry["masks"], expected, strict=True):
        assert mask["rle"] == record["segmentation"]
        x, y, width, height = coco.toBbox(record["segmentation"]).tolist()
        assert mask["box"] == [x, y, x + width, y + height]
        assert mask["crop"] == [0, 0, 120, 90]
        assert (mask["points"], mask["area"]) == (record["point_coords"], record["area"])
        for score in ("predicted_iou", "stability_score"):
            assert mask[score] == pytest.approx(record[score], abs=1e-6)
    assert (entry["width"], entry["height"]) == (120, 90)
    assert set(entry["seconds"]) == {"read", "search", "masks_and_files"}


def test_the_instance_map_has_small_masks_on_top(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = image.parent / "out"
    _, stdout, _ = run_here(
        capsys, image, "--everything", *OPTIONS, "--json", "--bundle", toy_bundle, "-o", out
    )
    records = json.loads(stdout)["images"][0]["masks"]
    with Image.open(out / "photo_instances.png") as file:
        assert file.mode == "P"
        instances = np.asarray(file)
    covering = np.stack([mask_of(record) for record in records])
    assert instances.shape == (90, 120)
    np.testing.assert_array_equal(instances > 0, covering.any(axis=0))
    areas = np.array([record["area"] for record in records])
    smallest = np.where(covering, areas[:, None, None], np.inf).argmin(axis=0) + 1
    np.testing.assert_array_equal(instances, np.where(covering.any(axis=0), smallest, 0))


def test_a_file_a_mask_when_asked(
    toy_bundle: Path, image: Path, photo: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    out = image.parent / "out"
    _, stdout, _ = run_here(
        capsys,
        *(image, "--everything", *OPTIONS, "--mask-files", "--json"),
        *("--bundle", toy_bundle, "-o", out),
    )
    records = json.loads(stdout)["images"][0]["masks"]
    assert len(written(out)) == len(records) + 2
    assert len(records) > 10
    for index, record in enumerate(records):
        assert Path(record["file"]) == out / f"photo_mask_{index:02}.png"
        np.testing.assert_array_equal(
            np.asarray(Image.open(record["file"])) == 255, mask_of(record)
        )
    overlay = np.asarray(Image.open(out / "photo_overlay.png"))
    covered = np.stack([mask_of(record) for record in records]).any(axis=0)
    assert (overlay != photo).any(axis=-1)[covered].mean() > 0.95


def test_text_and_many_images(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = image.parent / "out"
    other = image.with_name("other.png")
    Image.open(image).crop((0, 0, 60, 40)).save(other)
    code, stdout, stderr = run_here(
        capsys,
        *(image, image.with_name("none.png"), other, "--everything", *OPTIONS),
        *("--crop-n-layers", "1", "--min-mask-region-area", "9", "--bundle", toy_bundle),
        *("-o", out),
    )
    assert code == 2
    error, note = stderr.splitlines()
    assert "none.png: no such file" in error
    assert note.startswith("note: onnxruntime 1.")
    assert "within the bundle's accuracy limits" in note
    assert "photo_instances.png" in stdout
    assert "other_overlay.png" in stdout
    assert len(written(out)) == 4


def test_nothing_found_is_no_error(
    toy_bundle: Path, image: Path, photo: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    out = image.parent / "out"
    arguments = (image, "--everything", "--points-per-side", "2", "--bundle", toy_bundle)
    arguments += ("--backend", "onnxruntime")
    code, stdout, stderr = run_here(capsys, *arguments, "-o", out)
    assert (code, stderr) == (0, "")
    assert "no masks; lower --pred-iou-thresh" in stdout
    assert not np.asarray(Image.open(out / "photo_instances.png")).any()
    np.testing.assert_array_equal(np.asarray(Image.open(out / "photo_overlay.png")), photo)
    _, stdout, _ = run_here(capsys, *arguments, "-o", out, "--json")
    assert json.loads(stdout)["images"][0]["masks"] == []


BAD = {
    "points": (["--everything", "--points", "1,4"], "--everything takes no --points"),
    "box": (["--everything", "--box", "0,0,9,9"], "leave them out"),
    "multimask": (["--everything", "--multimask"], "--everything takes no"),
    "alone": (["--points", "1,4", "--crop-n-layers", "1"], "--crop-n-layers requires --everyth"),
    "files alone": (["--points", "1,4", "--mask-files"], "--mask-files requires --everything"),
    "range": (["--everything", "--pred-iou-thresh", "88"], "--pred-iou-thresh 88"),
    "no points": (["--everything", "--points-per-side", "0"], "--points-per-side 0"),
    "crops too small": (["--everything", "--crop-n-layers", "9"], "photo.png: image: 120 x 90"),
    "selftest": (["--everything", "--selftest"], "--selftest takes no"),
    "nothing asked": ([], "or --everything"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(
    name: str, toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = BAD[name]
    out = image.parent / "out"
    code, stdout, stderr = run_here(capsys, image, *arguments, "--bundle", toy_bundle, "-o", out)
    assert code == 2
    assert stdout == ""
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert words in stderr
    assert not out.exists()


def test_an_input_image_is_never_overwritten(
    toy_bundle: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precious = image.with_name("photo_instances.png")
    Image.open(image).save(precious)
    before = precious.read_bytes()
    code, _, stderr = run_here(
        capsys,
        *(image, precious, "--everything", "--points-per-side", "2"),
        *("--bundle", toy_bundle, "-o", image.parent),
    )
    assert code == 2
    assert "photo_instances.png is an input image" in stderr
    assert precious.read_bytes() == before
