"""Test glesam-degrade: the files it writes, and its one-line errors."""

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from glesam_evaluation.degrade import (
    RECIPES,
    Recipe,
    ReleasedRecipe,
    degrade,
    degrade_single,
    sample_recipe,
)
from glesam_evaluation.degrade_cli import degrade_app
from glesam_evaluation.scenes import make_scene
from glesam_runtime.console import exit_code_of


def run(*arguments: object) -> int:
    return exit_code_of(degrade_app, "glesam-degrade", [str(a) for a in arguments])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(make_scene(2, 48, 64).image).save(path)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".PNG"])
def test_the_file_holds_the_degraded_image(photo: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"low{suffix}"
    assert run(photo, "--level", 2, "--seed", 7, "-o", out) == 0
    expected = degrade(np.asarray(Image.open(photo)), 2, 7)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)
    assert {path.name for path in tmp_path.iterdir()} == {photo.name, out.name}


def test_json_holds_the_recipe(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(photo, "--level", 3, "--seed", 5, "-o", tmp_path / "low.png", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert msgspec.convert(document["recipe"], Recipe) == sample_recipe(3, 5)
    assert document["seed"] == 5


@pytest.mark.parametrize("name", ["released", "released-test"])
def test_a_released_recipe_draws_its_rate(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    out = tmp_path / "low.png"
    clear = np.asarray(Image.open(photo))
    assert run(photo, "--recipe", name, "--seed", 4, "-o", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    drawn = msgspec.convert(document["recipe"], ReleasedRecipe)
    assert drawn == sample_recipe(None, 4, RECIPES[name])
    np.testing.assert_array_equal(
        np.asarray(Image.open(out)), degrade(clear, None, 4, RECIPES[name])
    )
    assert run(photo, "--recipe", name, "--level", 3, "--square", 32, "-o", out) == 0
    assert "LQ-3" in capsys.readouterr().out
    expected = degrade(clear, 3, 0, RECIPES[name], side=32)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)


def test_a_kind_is_one_degradation_of_its_own(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "low.png"
    assert run(photo, "--kind", "fog", "--strength", 0.5, "--seed", 3, "-o", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == {
        "kind": "fog",
        "strength": 0.5,
        "seed": 3,
    }
    expected = degrade_single(np.asarray(Image.open(photo)), "fog", 0.5, 3)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected)


def test_bad_input_is_one_line_and_code_2(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "low.png"
    text = tmp_path / "text.png"
    text.write_text("not an image")
    before = photo.read_bytes()
    cases: list[tuple[list[object], str]] = [
        ([photo, "--level", 4, "-o", out], "level"),
        ([photo, "--level", "two", "-o", out], "level"),
        ([photo, "--level", 1, "--seed", -1, "-o", out], "seed"),
        ([photo, "--level", 1], "output"),
        ([photo, "-o", out], "level"),
        ([photo, "--level", 1, "--recipe", "real", "-o", out], "paper, released, released-test"),
        ([photo, "--recipe", "released", "--level", 5, "-o", out], "level 5"),
        ([photo, "--recipe", "released", "--square", 0, "-o", out], "side 0"),
        ([photo, "--level", 1, "--square", 512, "-o", out], "--square 512"),
        ([photo, "--kind", "sleet", "-o", out], "must be one of snow, fog, rain"),
        ([photo, "--kind", "fog", "--strength", 1.5, "-o", out], "strength 1.5"),
        ([photo, "--kind", "fog", "--strength", "nan", "-o", out], "strength nan"),
        ([photo, "--kind", "fog", "--level", 1, "-o", out], "leave --level out"),
        ([photo, "--kind", "fog", "--recipe", "released", "-o", out], "leave --recipe out"),
        ([photo, "--level", 1, "--strength", 0.5, "-o", out], "needs --kind"),
        ([photo, "--level", 1, "-o", tmp_path / "low.jpg"], "lossless"),
        ([photo, "--level", 1, "-o", tmp_path], "lossless"),
        ([photo, "--level", 1, "-o", photo], "is the input image"),
        ([photo, "--level", 1, "-o", tmp_path / "missing" / "low.png"], "missing"),
        ([tmp_path / "none.png", "--level", 1, "-o", out], "no such file"),
        ([text, "--level", 1, "-o", out], "not an image"),
        ([tmp_path, "--level", 1, "-o", out], "folder"),
    ]
    for arguments, hint in cases:
        assert run(*arguments) == 2, arguments
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("error: ")
        assert captured.err.count("\n") == 1
        assert hint in captured.err.lower()
    assert not out.exists()
    assert photo.read_bytes() == before


def test_without_the_extra_it_says_what_to_install(
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = "glesam_evaluation.degrade"
    for name in [name for name in sys.modules if f"{name}.".startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cv2", None)
    assert run(photo, "--level", 1, "-o", tmp_path / "low.png") == 2
    assert "glesam-deploy[calibration]" in capsys.readouterr().err
