"""Verification cases have prompts that lie where they should, and take the user's images."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_evaluation.scenes import make_scene
from glesam_export.families.sam.presets import SAM_PRESETS
from glesam_export.verify.cases import EXTREMES, LEVELS, PROMPTS, SEED, Case, make_cases
from glesam_runtime.errors import InputError

NANO = SAM_PRESETS["nano"]
CORNERS = [2.0, 3.0]


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return make_cases(NANO)


def write_image(path: Path, width: int, height: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_one_scene_at_every_level(cases: list[Case]) -> None:
    assert [case.level for case in cases] == ["clear", "LQ-1", "LQ-2", "LQ-3"]
    clear, *degraded = cases
    np.testing.assert_array_equal(clear.image, make_scene(SEED, 192, 256).image)
    for case in degraded:
        assert case.image.shape == clear.image.shape
        assert not np.array_equal(case.image, clear.image)
        for kind, prompts in case.prompts.items():
            for name, tensor in prompts.items():
                np.testing.assert_array_equal(tensor, clear.prompts[kind][name])


def test_every_kind_of_prompt_is_there(cases: list[Case]) -> None:
    prompts = cases[0].prompts
    labels = {kind: prompts[kind]["point_labels"].tolist() for kind in prompts}
    clicks = [[1.0, 1.0, 1.0, -1.0]] * PROMPTS
    assert labels == {"points": clicks, "boxes": [CORNERS] * PROMPTS, "masks": clicks}
    given = {kind: float(prompts[kind]["has_mask_input"][0]) for kind in prompts}
    assert given == {"points": 0, "boxes": 0, "masks": 1}


def test_prompts_lie_in_their_masks(cases: list[Case]) -> None:
    masks = sorted(make_scene(SEED, 192, 256).masks, key=lambda m: -int(m.sum()))[:PROMPTS]
    geometry = cases[0].prepared.geometry
    back = np.divide(geometry.original[::-1], geometry.resized[::-1])
    clicks = cases[0].prompts["points"]["point_coords"][:, :3] * back
    boxes = cases[0].prompts["boxes"]["point_coords"] * back
    for mask, points, corners in zip(masks, clicks, boxes, strict=True):
        for x, y in np.floor(points + 1e-3).astype(int):
            assert mask[y, x]
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        np.testing.assert_allclose(corners.reshape(-1), box, atol=1e-3)


def test_earlier_masks_fill_their_boxes(cases: list[Case]) -> None:
    """Check that logits are positive only in the ellipse that touches a box's four sides."""
    prompts = cases[0].prompts
    logits = prompts["masks"]["mask_input"][:, 0]
    centres = (np.arange(64) + 0.5) * 4
    for dome, ((x0, y0), (x1, y1)) in zip(logits, prompts["boxes"]["point_coords"], strict=True):
        across, down = (2 * centres - x0 - x1) / (x1 - x0), (2 * centres - y0 - y1) / (y1 - y0)
        inside = across[None, :] ** 2 + down[:, None] ** 2 < 1
        np.testing.assert_array_equal(dome > 0, inside)
        assert inside.any()
        assert dome.min() == -10
        assert 9 < dome.max() <= 10


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (3, 40), (640, 480), (300, 901)])
def test_own_images_of_any_size(size: tuple[int, int], tmp_path: Path) -> None:
    path = write_image(tmp_path / "mine.png", *size)
    cases = make_cases(NANO, [path])
    assert [(case.name, case.level) for case in cases] == [("mine.png", level) for level in LEVELS]
    for case in cases:
        assert case.image.shape == (*size[::-1], 3)
        assert case.prepared.tensor.shape == (1, 3, 256, 256)
        for prompts in case.prompts.values():
            assert all(np.isfinite(tensor).all() for tensor in prompts.values())


def test_no_two_images_share_a_name(tmp_path: Path) -> None:
    """Check that names differ, because equal names would overwrite each other's figures."""
    paths = [write_image(tmp_path / folder / "x.png", 8, 8) for folder in ("a", "b", "c")]
    names = [case.name for case in make_cases(NANO, paths)][:: len(LEVELS)]
    assert names == ["x.png", "x.png (2)", "x.png (3)"]


@pytest.mark.skipif(sys.platform != "linux", reason="names there are Unicode")
def test_a_name_that_is_no_unicode_can_be_written_down(tmp_path: Path) -> None:
    path = write_image(tmp_path / "plain.png", 8, 8).rename(tmp_path / os.fsdecode(b"caf\xe9.png"))
    assert make_cases(NANO, [path])[0].name == r"caf\xe9.png"


def test_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    good = write_image(tmp_path / "good.png", 9, 9)
    for path in (tmp_path / "bad.png", tmp_path / "none.png"):
        with pytest.raises(InputError, match=path.name):
            make_cases(NANO, [good, path])


def test_fewer_levels_are_cases_of_all_levels() -> None:
    """The clear image comes first, because the golden file is made of the first case."""
    fewer, every = make_cases(NANO, (), EXTREMES), make_cases(NANO)
    assert [case.level for case in fewer] == ["clear", "LQ-3"]
    by_level = {case.level: case for case in every}
    for case in fewer:
        np.testing.assert_array_equal(case.image, by_level[case.level].image)
