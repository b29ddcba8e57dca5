"""One image that ends processes, or a full disk, costs that image, or nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from .conftest import batch, failed_of, masks_of

pytest.importorskip("ray")

POISON = """
import os
import signal

if os.environ.get("GLESAM_TEST_POISON"):
    import numpy as np
    from glesam_runtime.input_images import InputImage
    from glesam_runtime.predictor_core import PredictorCore

    read, encode = InputImage.read, PredictorCore.set_prepared
    sizes = [tuple(map(int, size.split("x"))) for size in os.environ["GLESAM_TEST_POISON"].split()]

    def deadly_read(self, depth):
        if self.path.name == "p00002.png":
            os.kill(os.getpid(), signal.SIGKILL)
        return read(self, depth)

    def deadly_encode(self, prepared):
        if prepared.geometry.original == sizes[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        if prepared.geometry.original == sizes[1]:
            np.ones(1 << 44)
        return encode(self, prepared)

    InputImage.read, PredictorCore.set_prepared = deadly_read, deadly_encode
"""


def test_images_that_end_their_process_are_lost_alone(
    pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Image 2 kills the task that reads it, image 5 the actor that encodes it, 6 needs 128 TiB.

    The system kills without a word, as it does for lack of memory.
    """
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(POISON)
    sizes = {}
    for row in range(8):
        with Image.open(pictures.parent / f"p{row:05}.png") as image:
            sizes[row] = f"{image.height}x{image.width}"
    assert len(set(sizes.values())) == 8
    out = tmp_path / "out"
    words = (pictures, "-o", out, "--batch-size", "4", "--limit", "8")
    done = batch(
        *words,
        code=2,
        PYTHONPATH=str(tmp_path / "site"),
        GLESAM_TEST_POISON=f"{sizes[5]} {sizes[6]}",
    )
    failed = {row["row"]: row for row in failed_of(out)}
    assert sorted(failed) == [2, 5, 6], done.stdout + done.stderr
    for row in (2, 5):
        assert failed[row]["image"] == f"p{row:05}.png"
        assert failed[row]["error"].startswith("ended its process 4 times")
    assert failed[6]["error"] == "p00006.png: not enough memory for this image"
    expected = [row for row in masks_of(undisturbed) if row["row"] in (0, 1, 3, 4, 7)]
    assert masks_of(out) == expected


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of 64 KiB, which only root can make."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64k", "glesam-test", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_ends_the_job_with_one_line_and_loses_nothing(
    small_disk: Path, pictures: Path, undisturbed: Path
) -> None:
    out = small_disk / "out"
    words = (pictures, "-o", out, "--batch-size", "2", "--limit", "32")
    done = batch(*words, code=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert "no space left; free some and start the same command again" in errors[0]
    assert "Traceback" not in done.stderr
    parts = len(list(out.glob("masks/*/*.parquet")))
    assert 0 < parts < 16
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    done = batch(*words)
    assert f"resuming {out}: {parts} of 16 parts are written" in done.stderr
    assert masks_of(out) == [row for row in masks_of(undisturbed) if row["row"] < 32]
    assert failed_of(out) == []
