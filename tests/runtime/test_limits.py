"""Inputs above a limit end with one line, and inputs below it take memory in proportion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamPredictor, InputError, limits, masks, prompt_requests, read_image
from glesam_runtime.draw import draw_mask, draw_prompt
from glesam_runtime.errors import BundleError
from glesam_runtime.everything.crops import plan_crops
from glesam_runtime.everything.grids import even_grids
from glesam_runtime.everything.parameters import Parameters
from glesam_runtime.image import geometry_of
from glesam_runtime.manifest import Postprocessing, Stability
from glesam_runtime.prompt_requests import PromptRequest

RULES = Postprocessing("bilinear", 0.0, 1.0, "first")
SAM2_RULES = Postprocessing(
    "bilinear_direct", 0.0, 1.0, "first_if_stable", Stability(0.05, 0.98), 32.0
)


def test_a_limit_says_how_to_raise_it(monkeypatch: pytest.MonkeyPatch) -> None:
    limits.POINTS.check(4096, "points")
    with pytest.raises(
        InputError, match=r"more than the limit of 4096 points .* GLESAM_MAX_POINTS"
    ):
        limits.POINTS.check(4097, "points")
    monkeypatch.setenv("GLESAM_MAX_POINTS", "5000")
    limits.POINTS.check(5000, "points")
    with pytest.raises(BundleError, match="512 MiB"):
        limits.GOLDEN_BYTES.check((512 << 20) + 1, "golden.safetensors")


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e9", "9" * 40, "\u0663"])
def test_a_limit_that_is_no_number(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLESAM_MAX_POINTS", text)
    with pytest.raises(InputError, match=r"GLESAM_MAX_POINTS=.*whole number"):
        limits.POINTS.check(1, "points")


def test_each_limit_is_documented() -> None:
    page = Path(__file__).parents[2] / "docs/guide/first-mask.md"
    text = page.read_text(encoding="utf-8")
    listed = [each for each in vars(limits).values() if isinstance(each, limits.Limit)]
    assert len(listed) == 13
    for each in listed:
        assert f"| `{each.variable}` | {each.default} |" in text


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "wide.png"
    Image.new("L", (3000, 1)).save(path)
    assert read_image(path).shape == (1, 3000, 3)
    monkeypatch.setenv("GLESAM_MAX_SIDE", "2999")
    with pytest.raises(InputError, match=r"wide\.png: 3000 x 1 pixels.*GLESAM_MAX_SIDE"):
        read_image(path)


def test_prompts_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps([{"points": [[1, 1]] * 4097}]))
    with pytest.raises(InputError, match=r"prompts\.json: prompt 0: holds 4097 points"):
        prompt_requests.from_file(path)
    path.write_text(json.dumps([{"points": [[1, 1]]}] * 10_001))
    with pytest.raises(InputError, match=r"prompts\.json: holds 10001 prompts"):
        prompt_requests.from_file(path)
    monkeypatch.setenv("GLESAM_MAX_PROMPTS", "10001")
    assert len(prompt_requests.from_file(path)) == 10_001
    monkeypatch.setenv("GLESAM_MAX_JSON_MIB", "1")
    path.write_text(" " * (1 << 20) + "[]")
    with pytest.raises(InputError, match=r"too long.*1 MiB"):
        prompt_requests.from_file(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no /dev/zero")
def test_an_endless_prompts_file_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLESAM_MAX_JSON_MIB", "1")
    with pytest.raises(InputError, match="/dev/zero"):
        prompt_requests.from_file(Path("/dev/zero"))


@pytest.mark.parametrize("entry", [b'[{"p\xe9": 1}]', b'[{"points": [[1, 1]], "\xff": "\xe9"}]'])
def test_prompts_that_are_not_utf8(entry: bytes, tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes(entry)
    with pytest.raises(InputError, match=r"latin\.json"):
        prompt_requests.from_file(path)


def test_points_from_python(toy_bundle: Path) -> None:
    predictor = GleSamPredictor(toy_bundle)
    predictor.set_image(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="points: 4097 in one prompt"):
        predictor.predict(np.ones((4097, 2)), np.ones(4097))


def test_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="GLESAM_MAX_GRID_POINTS"):
        Parameters(points_per_side=10**9)
    with pytest.raises(InputError, match="GLESAM_MAX_GRID_POINTS"):
        Parameters(crop_n_layers=10**9)
    with pytest.raises(InputError, match="points_per_side"):
        Parameters(points_per_side=10**400)
    monkeypatch.setenv("GLESAM_MAX_GRID_POINTS", "200")
    assert [len(grid) for grid in even_grids(10, 1, 1)] == [100, 100]
    with pytest.raises(InputError, match="242 points up to layer 1"):
        even_grids(11, 1, 1)


def test_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(plan_crops(20_000, 20_000, 8, 0.3)) == (4**9 - 1) // 3
    with pytest.raises(InputError, match=r"1398101 crops up to layer 10.*GLESAM_MAX_CROPS"):
        plan_crops(16_384, 16_384, 14, 0)
    monkeypatch.setenv("GLESAM_MAX_CROPS", "20")
    with pytest.raises(InputError, match="crop_n_layers 2: 21 crops"):
        plan_crops(20_000, 20_000, 2, 0.3)


@pytest.mark.parametrize("rules", [RULES, SAM2_RULES], ids=["two steps", "one step"])
@pytest.mark.parametrize(("height", "width"), [(1, 700), (700, 1), (130, 210)])
def test_blocks_of_masks_do_not_show(
    rules: Postprocessing, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    low_res = np.random.default_rng(1).normal(size=(2, 16, 16)).astype(np.float32)
    geometry = geometry_of(height, width, 64, "square" if rules is SAM2_RULES else "longest_side")
    whole, made = masks.upscale(low_res, geometry, rules), masks.binarize(low_res, geometry, rules)
    masks._axis.cache_clear()
    monkeypatch.setattr(masks, "_BLOCK", 64)
    monkeypatch.setattr(masks, "_PART", 16)
    again = masks.binarize(low_res, geometry, rules)
    np.testing.assert_allclose(masks.upscale(low_res, geometry, rules), whole, atol=1e-6)
    masks._axis.cache_clear()
    sure = np.abs(whole) > 1e-5
    np.testing.assert_array_equal(again.masks[sure], made.masks[sure])
    np.testing.assert_allclose(again.stability, made.stability, atol=1e-2)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory of Linux")
@pytest.mark.parametrize("shape", [(1, 1_200_000), (1_200_000, 1)])
def test_a_very_long_picture_takes_little_memory(
    shape: tuple[int, int], toy_bundle: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "long.png")
    program = (  # the peak of this process alone; getrusage counts the parent's before exec
        "import sys; from pathlib import Path; from glesam_runtime import console; "
        "from glesam_runtime.cli import app; "
        "code = console.exit_code_of(app, 'glesam-run', sys.argv[1:]); "
        "status = Path('/proc/self/status').read_text(); "
        "print(code, int(status.split('VmHWM:')[1].split()[0]) >> 10)"
    )
    options = ["--points", "0,0", "--bundle", str(toy_bundle), "-o", "out", "--backend"]
    done = subprocess.run(
        [sys.executable, "-c", program, "long.png", *options, "onnxruntime"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    code, mebibytes = done.stdout.split()[-2:]
    assert code == "0", done.stderr
    assert int(mebibytes) < 600
    mask = Image.open(tmp_path / "out" / "long_mask.png")
    assert mask.size == shape[::-1]


def test_lines_and_dots_stop_growing() -> None:
    canvas = Image.new("RGB", (100_000, 2))
    draw_mask(canvas, np.ones((2, 100_000), np.bool_), (9, 9, 9))
    draw_prompt(canvas, PromptRequest("", ((50_000, 0),), (1.0,)), (9, 9, 9))
    marked = np.flatnonzero((np.asarray(canvas)[0] == (34, 197, 94)).all(axis=-1))
    assert 0 < marked.size < 2 * 32768 / 110
