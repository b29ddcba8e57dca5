"""glesam-run on folders, patterns and standard input, and what it says before a model is loaded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import bundle, console
from glesam_runtime.cli import app

POINT = ("--points", "5,5", "--backend", "onnxruntime")


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.fixture
def pics(tmp_path: Path, photo: np.ndarray) -> Path:
    folder = tmp_path / "pics"
    (folder / "sub").mkdir(parents=True)
    for name in ("b10.png", "b9.png", "b9.bmp", "sub/b9.png"):
        Image.fromarray(photo).save(folder / name)
    (folder / "broken.jpg").write_text("no image")
    (folder / "notes.txt").touch()
    return folder


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_folder_whose_images_fail_one_by_one(
    toy_bundle: Path, pics: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = pics.parent / "out"
    given = (pics, *POINT, "--bundle", toy_bundle, "-o", out, "--json", "--recursive")
    for _ in range(2):
        code, stdout, stderr = run_here(capsys, *given)
        assert code == 2
        assert stderr == (
            f"error: {pics}/broken.jpg: not an image in a known format; convert it to PNG or JPEG\n"
        )
        images = json.loads(stdout)["images"]
        assert [Path(each["image"]).relative_to(pics).as_posix() for each in images] == [
            *("b9.bmp", "b9.png", "b10.png", "broken.jpg", "sub/b9.png")
        ]
        assert ["error" in each for each in images] == [False, False, False, True, False]
        stems = ("b10", "b9-2", "b9-3", "b9")
        assert written(out) == sorted(
            f"{stem}_{what}.png" for stem in stems for what in ("mask", "overlay")
        )


def test_results_beside_the_images_are_not_segmented_the_next_time(
    toy_bundle: Path,
    pics: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(pics)
    for _ in range(2):
        code, stdout, _ = run_here(capsys, ".", "*.bmp", *POINT, "--bundle", toy_bundle, "--json")
        assert code == 2
        images = [each["image"] for each in json.loads(stdout)["images"]]
        assert images == ["b9.bmp", "b9.png", "b10.png", "broken.jpg"]
    assert len(written(pics)) == 6 + 6


def test_an_argument_without_images_fails_by_itself(
    toy_bundle: Path, pics: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, out = pics.parent / "empty", pics.parent / "out"
    empty.mkdir()
    common = (*POINT, "--bundle", toy_bundle, "-o", out, "--json")
    code, stdout, stderr = run_here(capsys, empty, pics / "b10.png", pics / "*.gif", *common)
    assert code == 2
    first, good, last = json.loads(stdout)["images"]
    assert first["error"].startswith(f"{empty}: a folder without images")
    assert last["error"] == f"{pics}/*.gif: no image matches this pattern"
    assert "masks" in good
    assert [line.removeprefix("error: ") for line in stderr.splitlines()] == [
        *(first["error"], last["error"])
    ]


def test_standard_input_in_a_process_of_its_own(toy_bundle: Path, pics: Path) -> None:
    command = [sys.executable, "-m", "glesam_runtime", "-", *POINT, "--bundle", str(toy_bundle)]
    with (pics / "b9.png").open("rb") as image:
        done = subprocess.run(command, stdin=image, cwd=pics, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("stdin  120 x 90 ")
    assert (pics / "stdin_mask.png").is_file()
    assert (pics / "stdin_overlay.png").is_file()


EARLY: dict[str, tuple[list[str], str]] = {
    "outside": (["PNG", "--points", "121,4"], "b9.png: --points: point 121,4 lies outside the im"),
    "box outside": (["PNG", "--box", "500,500,600,600"], "b9.png: --box: "),
    "a pattern of one": (["pics/b10*", "--points", "9,91"], "pics/b10.png: --points: point 9,91"),
    "no image": (["pics/broken.jpg", "--points", "1,1"], "broken.jpg: not an image"),
    "empty folder": (["empty", "--points", "1,1"], "empty: a folder without images"),
    "no match": (["*.png", "--points", "1,1"], "*.png: no image matches this pattern"),
    "empty argument": (["", "--points", "1,1"], "an image argument is empty"),
    "NaN": (["PNG", "--points", "nan,4"], "NaN"),
    "malformed": (["PNG", "--box", "1,2,3"], "--box 1,2,3: x0,y0,x1,y1 is needed"),
    "backend": (["PNG", "--points", "1,4", "--backend", "trt"], "known are auto"),
    "no files": (["PNG", "--points", "1,4", "--no-files"], "--no-files requires --json"),
    "no files in a folder": (
        ["PNG", "--points", "1,4", "--no-files", "--json", "-o", "out"],
        "-o out: --no-files writes nothing",
    ),
    "no mask files": (
        ["PNG", "--everything", "--no-files", "--json", "--mask-files"],
        "--mask-files and --no-files exclude each other",
    ),
    "demo": (["--demo", "--no-files", "--json"], "--demo writes files"),
    "both of one stream": (["-", "--prompts", "-"], "standard input holds an image or prompts"),
    "both levels": (["PNG", "--points", "1,4", "-q", "-v"], "exclude each other"),
    "prompts of a folder": (["PNG", "--prompts", "pics"], "pics: cannot be read (Is a directory)"),
}


@pytest.mark.parametrize("name", EARLY)
def test_what_is_said_before_a_bundle_is_opened(
    name: str, pics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_path: object) -> None:
        raise AssertionError("a bundle was opened")

    monkeypatch.setattr(bundle, "open_bundle", fail)
    monkeypatch.chdir(pics.parent)
    Path("empty").mkdir()
    arguments, words = EARLY[name]
    given = ["pics/b9.png" if each == "PNG" else each for each in arguments]
    code, stdout, stderr = run_here(capsys, *given)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert stderr.startswith("error: ")
    assert words in stderr
    assert written(pics.parent) == ["empty", "pics"]


def test_verbose_and_quiet(
    toy_bundle: Path, pics: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = (pics / "b9.png", *POINT, "--bundle", toy_bundle, "-o", tmp_path / "out")
    code, stdout, stderr = run_here(capsys, *given, "-v")
    assert code == 0
    program, loaded, image, total = stderr.splitlines()
    assert program.startswith("detail: glesam ")
    assert loaded.startswith("detail: loaded encoder, enhancer, decoder in ")
    assert "engine onnxruntime" in loaded
    assert loaded.endswith("; no cache")
    assert re.search(r"b9\.png: read [0-9.]+, .*encoder [0-9.]+, .* s$", image)
    assert total.startswith("detail: total: ")
    code, quiet, stderr = run_here(capsys, *given, "-q")
    assert (code, stderr) == (0, "")
    assert quiet.splitlines()[1:] == stdout.splitlines()[1:]
