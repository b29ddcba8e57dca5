"""Folders, patterns and standard input name the images that a shell would list."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import InputError
from glesam_runtime.input_images import SUFFIXES, InputImage, find_images

FILES = ("a10.png", "A2.jpg", "a1.png", "b.JPEG", "sub/deep.png", "sub/more/deeper.webp")
OTHERS = ("notes.txt", ".hidden.png", ".git/x.png", "sub/data.csv", "raw.dat")


class Stdin:
    def __init__(self, content: bytes, terminal: bool = False) -> None:
        self.buffer = io.BytesIO(content)
        self.isatty = lambda: terminal


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*FILES, *OTHERS):
        path = tmp_path / "pics" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str, recursive: bool = False) -> list[str]:
    return [
        image.path.as_posix().removeprefix("pics/")
        for image in find_images(arguments, recursive)
        if image.problem is None
    ]


def problem(*arguments: str) -> str:
    (image,) = find_images(arguments)
    assert image.problem is not None
    with pytest.raises(InputError) as caught:
        image.read("auto")
    assert str(caught.value) == image.problem
    return image.problem


@pytest.mark.parametrize("folder", ["pics", "pics/", "./pics"])
def test_a_folder_is_its_images_in_natural_order(here: Path, folder: str) -> None:
    assert names(folder) == ["a1.png", "A2.jpg", "a10.png", "b.JPEG"]
    deep = ["a1.png", "A2.jpg", "a10.png", "b.JPEG", "sub/deep.png", "sub/more/deeper.webp"]
    assert names(folder, recursive=True) == deep


@pytest.mark.skipif(os.name == "nt", reason="bash is the oracle")
@pytest.mark.parametrize(
    "pattern",
    [
        *("pics/*.png", "pics/*.jpg", "pics/a?.png", "pics/[ab]*.*", "pics/**/*.png", "p*/a*.png"),
        *("pics/sub/*/*.webp", "pics/a[0-9][0-9].png", "pics/*/*.png", "pics/*.dat"),
    ],
)
def test_a_pattern_is_what_the_shell_makes_of_it(here: Path, pattern: str) -> None:
    script = f"shopt -s nullglob globstar; LC_ALL=C printf '%s\\n' {pattern}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    listed = [line for line in done.stdout.splitlines() if line and not Path(line).is_dir()]
    wanted = [line for line in listed if Path(line).suffix.lower() in {*SUFFIXES, ".dat"}]
    assert wanted
    found = [image.path.as_posix() for image in find_images([pattern]) if not image.problem]
    assert sorted(found) == sorted(wanted)


def test_a_pattern_takes_image_suffixes_unless_it_says_one(here: Path) -> None:
    assert names("pics/*") == ["a1.png", "A2.jpg", "a10.png", "b.JPEG"]
    assert names("pics/**") == names("pics", recursive=True)
    assert names("pics/*.dat") == ["raw.dat"]
    assert names("pics/.h*.png") == [".hidden.png"]


def test_a_file_is_itself_whatever_its_name(here: Path) -> None:
    for name in ("odd[1].png", "what?.jpg", "notes.txt", "-"):
        (here / name).touch()
    assert names("odd[1].png", "what?.jpg", "notes.txt", "./-") == [
        *("odd[1].png", "what?.jpg", "notes.txt", "-")
    ]
    (here / "odd[2]").mkdir()
    (here / "odd[2]" / "x.png").touch()
    assert names("odd[2]") == ["odd[2]/x.png"]


def test_an_image_comes_once_unless_it_is_named_twice(here: Path) -> None:
    assert names("pics", "pics/*.png") == ["a1.png", "A2.jpg", "a10.png", "b.JPEG"]
    assert names("pics/*.png", "pics/a1.png") == ["a10.png", "a1.png"]
    assert names("pics/a1.png", "pics/a1.png") == ["a1.png", "a1.png"]


def test_results_of_an_earlier_run_are_no_images(here: Path) -> None:
    endings = ("mask", "mask_0", "mask_12", "overlay", "instances", "instances_colours")
    for ending in endings:
        (here / "pics" / f"a1_{ending}.png").touch()
        (here / "pics" / f"a1-2_{ending}.png").touch()
    (here / "pics/alone_mask.png").touch()
    (here / "pics/b-7.png").touch()
    (here / "pics/b-7_mask.png").touch()
    wanted = ["a1.png", "A2.jpg", "a10.png", "alone_mask.png", "b.JPEG", "b-7.png"]
    assert sorted(names("pics")) == sorted(wanted)
    assert len(names("pics/*_overlay.png")) == 2


def test_what_names_no_image(here: Path) -> None:
    assert problem("empty") == (
        "empty: a folder without images; --recursive also searches its subfolders"
    )
    assert problem("pics/*.gif") == "pics/*.gif: no image matches this pattern"
    assert problem("none/*.gif") == "none/*.gif: no image matches this pattern"
    assert problem("pics/su?") == "pics/su?: no image matches this pattern"
    assert problem("pics/a**b").startswith("pics/a**b: ")
    assert "is empty" in problem("")
    (image,) = find_images(["none.png"])
    assert image.early_problem() == "none.png: no such file"
    mixed = find_images(["empty", "pics/a1.png", "none.png"])
    assert [image.problem is None for image in mixed] == [False, True, True]


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid"), reason="POSIX")
def test_links(here: Path) -> None:
    (here / "pics/loop").symlink_to(here / "pics", target_is_directory=True)
    (here / "pics/again").symlink_to(here / "pics", target_is_directory=True)
    (here / "pics/broken.png").symlink_to("nowhere.png")
    assert names("pics/**/*.webp") == ["sub/more/deeper.webp"]
    assert "loop/a1.png" not in names("pics", recursive=True)
    (broken,) = [image for image in find_images(["pics"]) if image.path.name == "broken.png"]
    assert broken.early_problem() == "pics/broken.png: no such file"


def test_the_limit_of_images(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLESAM_MAX_IMAGES", "3")
    with pytest.raises(InputError, match=r"pics: names 4 images.*GLESAM_MAX_IMAGES"):
        find_images(["pics"])


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    monkeypatch.setattr(sys, "stdin", Stdin(written.getvalue()))
    (image,) = find_images([name])
    assert (image.path, image.size(), image.pixels()) == (Path("stdin"), (4, 5), 20)
    np.testing.assert_array_equal(image.read("auto")[0], pixels)


@pytest.mark.parametrize(
    ("stdin", "arguments", "words"),
    [
        (Stdin(b"", terminal=True), ["-"], "-: standard input is a terminal; pipe an image"),
        (None, ["/dev/stdin"], "/dev/stdin: standard input is closed"),
        (Stdin(b"x" * (1 << 20) + b"x"), ["-"], "too long, more than the limit of 1 MiB"),
        (Stdin(b"x"), ["-", "/dev/stdin"], "given twice"),
    ],
)
def test_standard_input_that_cannot_be_used(
    stdin: Stdin | None, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setenv("GLESAM_MAX_STDIN_MIB", "1")
    with pytest.raises(InputError, match=words):
        find_images(arguments)


def test_the_size_is_the_upright_one_and_errors_are_those_of_reading(tmp_path: Path) -> None:
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(turned, exif=exif)
    assert InputImage(turned).size() == (30, 20)
    for content, words in ((b"", "empty file"), (b"text", "not an image")):
        bad = tmp_path / "bad.png"
        bad.write_bytes(content)
        with pytest.raises(InputError, match=rf"bad\.png: {words}"):
            InputImage(bad).size()
