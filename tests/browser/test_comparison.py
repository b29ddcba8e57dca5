"""Check the comparison with plain SAM, degraded pictures, everything-mode, and what is saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import expect
from pycocotools import mask as coco

from glesam_evaluation.degrade import apply_recipe, sample_recipe
from glesam_runtime import GleSamMaskGenerator

from .conftest import Oracle, Site, oracle_of

COIN, OTHER = (245, 300), (445, 135)


def test_slider_divides_plain_from_enhanced(site: Site, oracle: Oracle) -> None:
    site.click(*COIN)
    site.page.check("#compare")
    expect(site.find("#figures thead")).to_contain_text("plain")
    plain, enhanced = (oracle.mask([[*COIN, 1]], enhance=enhance) for enhance in (False, True))
    assert (plain != enhanced).any()
    expect(site.find("#figures tbody tr").filter(has_text="Area").locator("td")).to_have_text(
        [f"{plain.sum():,}", f"{enhanced.sum():,}"]
    )
    width = plain.shape[1]
    for percent in (0, 50, 100):
        site.find("#split").fill(str(percent))
        edge = width * percent // 100
        expected = np.concatenate([plain[:, :edge], enhanced[:, edge:]], axis=1)
        np.testing.assert_array_equal(site.mask(), expected)
    site.find("#split").focus()
    site.page.keyboard.press("Home")
    np.testing.assert_array_equal(site.mask(), enhanced)
    site.page.uncheck("#compare")
    expect(site.find("#divider i")).to_be_hidden()
    np.testing.assert_array_equal(site.mask(), enhanced)


def test_divider_is_dragged_on_the_picture(site: Site, oracle: Oracle) -> None:
    site.click(*COIN)
    site.page.check("#compare")
    expect(site.find("#figures tbody tr").filter(has_text="Area").locator("td")).to_have_count(2)
    site.find("#divider i").hover()
    site.page.mouse.down()
    site.page.mouse.move(*site.place(511, 200), steps=3)
    site.page.mouse.up()
    assert float(site.find("#split").input_value()) >= 99
    assert site.points() == [[*COIN, 1]]
    plain = oracle.mask([[*COIN, 1]], enhance=False)
    np.testing.assert_array_equal(site.mask()[:, :500], plain[:, :500])


@pytest.mark.parametrize("level", [1, 3])
def test_degraded_picture(
    site: Site, pixels: NDArray[np.uint8], oracle: Oracle, level: int
) -> None:
    site.click(*COIN)
    clear = oracle.mask([[*COIN, 1]], enhance=False)
    degraded = oracle_of(apply_recipe(pixels, sample_recipe(level, 0)))
    masks = [degraded.mask([[*COIN, 1]], enhance=enhance) for enhance in (False, True)]
    site.find("#level").fill(str(level))
    site.status(f"LQ-{level}.")
    expect(site.find("#compare")).to_be_checked()
    ious = [f"{(mask & clear).sum() / (mask | clear).sum():.3f}" for mask in masks]
    row = site.find("#figures tbody tr").filter(has_text="IoU with clear").locator("td")
    expect(row).to_have_text(ious)
    for percent, mask in zip((100, 0), masks, strict=True):
        site.find("#split").fill(str(percent))
        np.testing.assert_array_equal(site.mask(), mask)
    site.find("#level").fill("0")
    site.status("clear")
    np.testing.assert_array_equal(site.mask(), oracle.mask([[*COIN, 1]]))


def test_everything(site: Site, oracle: Oracle, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    from glesam_runtime import GleSamPredictor

    generator = GleSamMaskGenerator(
        GleSamPredictor(backend="onnxruntime"),
        points_per_batch=8,
        pred_iou_thresh=0.65,
        output_mode="coco_rle",
    )
    records = sorted(generator.generate(pixels), key=lambda one: -one["area"])
    assert len(records) > 3
    site.find("#least").fill("0.65")
    site.page.keyboard.press("e")
    progress = site.find("#progress")
    expect(progress).to_be_visible()
    shares = set()
    while progress.is_visible():
        shares.add(float(progress.evaluate("(bar) => bar.value")))
        site.page.wait_for_timeout(50)
    assert any(0 < share < 1 for share in shares)
    site.status(f"Found {len(records)} objects")
    expect(site.find("#list [role=option]")).to_have_count(len(records))
    saved = json.loads(download(site, "#save-coco", tmp_path).read_text())
    found = [one["segmentation"] for one in saved["annotations"]]
    assert sorted(map(str, found)) == sorted(str(one["segmentation"]) for one in records)
    site.page.click("#undo")
    assert not site.mask().any()


def test_everything_is_stopped(site: Site, oracle: Oracle) -> None:
    site.page.click("#everything")
    expect(site.find("#everything")).to_be_disabled()
    site.page.click("#stop")
    site.status("stopped")
    expect(site.find("#everything")).to_be_enabled()
    expect(site.find("#progress")).to_be_hidden()
    site.click(*COIN)
    np.testing.assert_array_equal(site.mask(), oracle.mask([[*COIN, 1]]))


def download(site: Site, button: str, folder: Path) -> Path:
    with site.page.expect_download() as waiting:
        site.page.click(button)
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_downloads(site: Site, oracle: Oracle, pixels: NDArray[np.uint8], tmp_path: Path) -> None:
    site.click(*COIN)
    site.page.fill("#name", "a coin")
    site.page.click("#add")
    site.click(*OTHER)
    masks = {"a coin": oracle.mask([[*COIN, 1]]), "Object 2": oracle.mask([[*OTHER, 1]])}

    path = download(site, "#save-mask", tmp_path)
    assert path.name == "sample_Object_2_mask.png"
    mask = np.asarray(Image.open(path).convert("L"))
    np.testing.assert_array_equal(mask, masks["Object 2"] * np.uint8(255))

    path = download(site, "#save-overlay", tmp_path)
    assert path.name == "sample_overlay.png"
    overlay = np.asarray(Image.open(path).convert("RGB")).astype(int)
    covered = masks["a coin"] | masks["Object 2"]
    # Chromium and Pillow decode JPEG with a difference of a few levels.
    difference = np.abs(overlay - pixels).max(axis=2)
    assert difference[~covered].max() <= 6
    assert (difference[covered] > 6).mean() > 0.95

    path = download(site, "#save-coco", tmp_path)
    assert path.name == "sample_coco.json"
    saved = json.loads(path.read_text())
    assert saved["images"] == [{"id": 1, "file_name": "sample.jpg", "width": 512, "height": 384}]
    names = {category["id"]: category["name"] for category in saved["categories"]}
    assert sorted(names.values()) == ["Object 2", "a coin"]
    for annotation in saved["annotations"]:
        expected = masks[names[annotation["category_id"]]]
        np.testing.assert_array_equal(coco.decode(annotation["segmentation"]), expected)
        assert annotation["area"] == coco.area(annotation["segmentation"])
        assert annotation["bbox"] == coco.toBbox(annotation["segmentation"]).tolist()
