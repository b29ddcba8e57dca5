"""Closed streams and pipes end as other programs end, and no input commands the terminal."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import console
from glesam_runtime.cli import app
from glesam_runtime.console import report
from glesam_runtime.terminal_text import printable
from glesam_runtime.verbosity import print_note

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX shells")
RUN = shlex.join([sys.executable, "-m", "glesam_runtime"])
EVIL = "a\x1b[31m\x07\x9b2J\u202eb"


@pytest.fixture
def options(toy_bundle: Path, tmp_path: Path, photo: np.ndarray) -> str:
    Image.fromarray(photo).save(tmp_path / "photo.png")
    bundle = shlex.quote(str(toy_bundle))
    return f"photo.png --points 9,9 --bundle {bundle} --backend onnxruntime -o out"


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=False
    )


@posix
@pytest.mark.parametrize(
    ("streams", "code"),
    [
        ("| head -0", 141),
        ("2>&1 | head -0", 141),
        (">&-", 0),
        ("2>&-", 0),
        (">&- 2>&-", 0),
        ("<&- >&- 2>&-", 0),
    ],
)
@pytest.mark.parametrize("json_too", ["", "--json"])
def test_streams_that_nobody_reads(
    streams: str, code: int, json_too: str, options: str, tmp_path: Path
) -> None:
    done = shell(f"{RUN} {options} {json_too} {streams}; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert done.returncode == code
    assert done.stderr == ""
    assert (tmp_path / "out" / "photo_mask.png").exists()


@posix
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_that_nobody_reads(option: str, tmp_path: Path) -> None:
    done = shell(f"{RUN} {option} | head -0; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (done.returncode, done.stderr) == (141, "")


@posix
def test_an_error_does_not_go_to_stdout_instead(tmp_path: Path) -> None:
    done = shell(f"{RUN} none.png --points 1,1 2>&-", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")


def test_printable() -> None:
    assert printable(EVIL) == r"a\x1b[31m\x07\x9b2J\u202eb"
    usual = "Größe 写真 \U0001f469\u200d\U0001f52c \\ 'x' \udce9"
    assert printable(usual) == usual


def test_errors_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    report(f"{EVIL}: bad\nnews")
    print_note(EVIL)
    wanted = r"a\x1b[31m\x07\x9b2J\u202eb"
    assert capsys.readouterr().err == f"error: {wanted}: bad news\nnote: {wanted}\n"


@pytest.mark.skipif(os.name == "nt", reason="names that Windows refuses")
def test_names_of_images_prompts_and_tensors(
    toy_bundle: Path,
    toy_copy: Path,
    tmp_path: Path,
    photo: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(photo).save(tmp_path / f"{EVIL}.png")
    (tmp_path / f"{EVIL}.json").write_text(json.dumps([{EVIL: 1}]))
    (tmp_path / "bad.json").write_text(json.dumps([{"points": [[1, 1]], EVIL: 1}]))
    manifest = toy_copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"low_res_masks"', json.dumps(EVIL)))
    image = tmp_path / f"{EVIL}.png"
    common = ["--backend", "onnxruntime", "-o", tmp_path / "out"]
    for arguments in (
        [image, "--points", "9,9", "--bundle", toy_bundle],
        [image, "--points", "9,9", "--bundle", toy_bundle, "--json"],
        [image, "--points", "9999,9", "--bundle", toy_bundle],
        [image, "--points", EVIL],
        [image, f"--{EVIL}"],
        [image, "--prompts", tmp_path / f"{EVIL}.json"],
        [image, "--prompts", tmp_path / "bad.json"],
        [image, "--points", "9,9", "--bundle", toy_copy],
        [tmp_path / f"no{EVIL}.png", "--points", "9,9"],
        ["--demo", "-o", tmp_path / EVIL, "--bundle", toy_bundle],
    ):
        console.exit_code_of(app, "glesam-run", [str(each) for each in [*common, *arguments]])
        out, err = capsys.readouterr()
        assert out or err
        assert not set(out + err) & set("\x1b\x07\x9b\u202e")
        assert r"\x1b[31m" in out + err or r"\u001b[31m" in out + err or "bad.json" in err
