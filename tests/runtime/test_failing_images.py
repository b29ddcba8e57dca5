"""An image that cannot be read or written fails by itself; the others and --json are complete."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamPredictor, InputError, console, segment_many
from glesam_runtime.cli import app

POSIX = pytest.mark.skipif(os.name == "nt", reason="POSIX files")
WAYS = [("--points", "9,9"), ("--points", "9,9", "--in-flight", "1"), ("--everything",)]


@pytest.fixture
def good(tmp_path: Path) -> list[Path]:
    """Two images, to stand before and after the one that fails."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    paths = [tmp_path / "images" / name for name in ("first.png", "last.png")]
    paths[0].parent.mkdir()
    for path in paths:
        Image.fromarray(pixels).save(path)
    return paths


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def run(
    capsys: pytest.CaptureFixture[str], bundle: Path, images: list[Path], out: Path, *way: str
) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Return the exit code, the entries of --json and the error lines."""
    given = [*images, *way, "--bundle", bundle, "--backend", "onnxruntime", "--json", "-o", out]
    code = console.exit_code_of(app, "glesam-run", [str(each) for each in given])
    stdout, stderr = capsys.readouterr()
    return code, json.loads(stdout)["images"], [x for x in stderr.splitlines() if "error:" in x]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[-1])
def test_a_name_near_the_limit_is_written(
    way: tuple[str, ...],
    toy_bundle: Path,
    good: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """244 bytes leave no room for a temporary name that repeats the whole name."""
    longest = good[0].with_name("m" * 230 + ".png")
    longest.write_bytes(good[0].read_bytes())
    images = [good[0], longest, good[1]]
    code, entries, errors = run(capsys, toy_bundle, images, tmp_path / "out", *way)
    assert (code, errors) == (0, [])
    assert [entry["image"] for entry in entries] == [str(path) for path in images]
    names = names_in(tmp_path / "out")
    assert "m" * 230 + "_overlay.png" in names
    assert [name for name in names if name.startswith(".")] == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[-1])
def test_an_output_name_that_is_too_long(
    way: tuple[str, ...],
    toy_bundle: Path,
    good: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    too_long = good[0].with_name("\u00e9" * 125 + ".png")  # 254 bytes
    too_long.write_bytes(good[0].read_bytes())
    images = [good[0], too_long, good[1]]
    code, entries, errors = run(capsys, toy_bundle, images, tmp_path / "out", *way)
    assert code == 2
    assert [entry["image"] for entry in entries] == [str(path) for path in images]
    assert ["error" in entry for entry in entries] == [False, True, False]
    assert "its name is too long" in entries[1]["error"]
    assert len(errors) == 1
    assert all(name.startswith(("first", "last")) for name in names_in(tmp_path / "out"))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[-1])
def test_a_folder_that_cannot_be_written(
    way: tuple[str, ...],
    toy_bundle: Path,
    good: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A read-only file system refuses to clean up too; the first error is the one reported."""

    def refuse(self: Path, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(Image.Image, "save", lambda _, path, *__, **___: refuse(path))
    monkeypatch.setattr(Path, "unlink", refuse)
    code, entries, errors = run(capsys, toy_bundle, good, out, *way)
    assert code == 2
    assert [entry["image"] for entry in entries] == [str(path) for path in good]
    assert all("the file system is read-only" in entry["error"] for entry in entries)
    assert all(".partial" not in line for line in errors)
    assert len(errors) == 2


@POSIX
def test_a_folder_that_cannot_be_made(
    toy_bundle: Path, good: list[Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for out in (tmp_path / "loop", good[0] / "below a file"):
        code, entries, errors = run(capsys, toy_bundle, good, out, *WAYS[0])
        assert code == 2
        assert [entry["image"] for entry in entries] == [str(path) for path in good]
        assert all("error" in entry for entry in entries)
        assert len(errors) == 2


def special(path: Path, kind: str) -> Any:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        made = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        made.bind(path.name)
        os.chdir(here)
        return made
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a fifo":
        os.mkfifo(path.with_name("real"))
        path.symlink_to("real")
    elif kind == "loop":
        path.symlink_to(path.name)
    return None


KINDS = [
    ("fifo", "a FIFO"),
    ("link to a fifo", "a FIFO"),
    ("socket", "a socket"),
    ("device", "a device"),
    ("loop", ""),
    ("missing", "no such file"),
]


@POSIX
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[-1])
@pytest.mark.parametrize(("kind", "words"), KINDS)
def test_what_is_no_regular_file(
    kind: str,
    words: str,
    way: tuple[str, ...],
    toy_bundle: Path,
    good: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = good[0].with_name("odd.png")
    kept = special(odd, kind)
    images = [good[0], odd, good[1]]
    code, entries, _ = run(capsys, toy_bundle, images, tmp_path / "out", *way)
    assert code == 2
    assert ["error" in entry for entry in entries] == [False, True, False]
    assert entries[1]["error"].startswith(f"{odd}: {words}")
    del kept


@POSIX
def test_segment_many_does_not_wait_for_a_fifo(
    toy_bundle: Path, good: list[Path], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    long = tmp_path / ("n" * 300 + ".png")
    sources = [good[0], tmp_path / "fifo.png", long, good[1]]
    predictor = GleSamPredictor(toy_bundle, backend="onnxruntime")
    results = list(segment_many(predictor, [(each, {"box": [1, 1, 9, 9]}) for each in sources]))
    assert [isinstance(result, InputError) for result in results] == [False, True, True, False]
    assert "a FIFO" in str(results[1])


def test_a_name_of_300_characters_comes_first(
    toy_bundle: Path, good: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [good[0].with_name("n" * 300 + ".png"), good[1]]
    code, entries, _ = run(capsys, toy_bundle, images, tmp_path / "out", *WAYS[0])
    assert code == 2
    assert ["error" in entry for entry in entries] == [True, False]


@POSIX
@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("cp1252", rb"\u65e5\u672c" + "\u00e9".encode("cp1252")),
        ("ascii", rb"\u65e5\u672c\xe9"),
        ("ascii:replace", b"???"),
        ("utf-8", "\u65e5\u672c\u00e9".encode()),
    ],
)
def test_a_name_that_stdout_cannot_encode(
    encoding: str, shown: bytes, toy_bundle: Path, good: list[Path], tmp_path: Path
) -> None:
    names = [os.fsencode("\u65e5\u672c\u00e9.png"), b"\xff\xfe.png"]  # the second is no text
    for name in names:
        Path(os.fsdecode(bytes(good[0].parent) + b"/" + name)).write_bytes(good[0].read_bytes())
    images = [bytes(good[0].parent) + b"/" + name for name in names]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "glesam_runtime", *images, good[1], "--points", "9,9"),
            *("--bundle", toy_bundle, "--backend", "onnxruntime", "-o", tmp_path / "out"),
        ],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert shown + b"_mask.png" in done.stdout
    assert b"last_mask.png" in done.stdout
    assert len(names_in(tmp_path / "out")) == 6
