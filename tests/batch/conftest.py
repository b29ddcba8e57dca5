"""Procedural pictures with boxes, and the commands of a job. Run by `make test-batch`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# The nodes of a test's own cluster have it too, as glesam-batch's own do.
os.environ.setdefault("RAY_worker_niceness", "0")

BATCH = (
    "import sys; from glesam_serving.batch.cli import main; sys.argv[0] = 'glesam-batch'; main()"
)


def make_pictures(folder: Path, count: int) -> Path:
    """Write pictures of bright shapes on a dark ground, and a table of their boxes."""
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "rows.jsonl"
    with table.open("w") as file:
        for index in range(count):
            rng = np.random.default_rng(index)
            width, height = (int(side) for side in rng.integers(64, 160, 2))
            pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
            boxes = []
            for _ in range(1 + index % 3):
                x, y = int(rng.integers(0, width - 30)), int(rng.integers(0, height - 24))
                pixels[y : y + 20, x : x + 26] = rng.integers(120, 255, 3)
                boxes.append([x, y, x + 26, y + 20])
            name = f"p{index:05}.png"
            Image.fromarray(pixels).save(folder / name)
            file.write(json.dumps({"image": name, "boxes": boxes}) + "\n")
    return table


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-c", BATCH, *map(str, words)]


def batch(*words: str | Path, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run glesam-batch to its end, and check its exit code."""
    done = subprocess.run(
        command(*words),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, **variables},
    )
    assert done.returncode == code, done.stderr
    return done


def masks_of(out: Path) -> list[dict[str, Any]]:
    """Return all rows of a job without their seconds, in order. A row that is there twice stays."""
    from pyarrow import parquet

    rows = []
    for path in sorted(out.glob("masks/*/*.parquet")):
        rows += parquet.read_table(path).drop_columns(["seconds"]).to_pylist()
    return sorted(rows, key=lambda row: (row["row"], row["mask"]))


def failed_of(out: Path) -> list[dict[str, Any]]:
    from pyarrow import parquet

    rows: list[dict[str, Any]] = []
    for path in sorted(out.glob("failed/*/*.parquet")):
        rows += parquet.read_table(path).to_pylist()
    return sorted(rows, key=lambda row: row["row"])


def glesam_run(table: Path, rows: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Return what glesam-run --json says of some images of a table: the oracle."""
    import contextlib
    import io

    from glesam_runtime.cli import app
    from glesam_runtime.console import exit_code_of

    listed = [json.loads(line) for line in table.read_text().splitlines()]
    found = {}
    for row in rows:
        words = [str(table.parent / listed[row]["image"]), "--json", "--no-files", "--quiet"]
        for box in listed[row]["boxes"]:
            words += ["--box", ",".join(map(str, box))]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert exit_code_of(app, "glesam-run", words) == 0
        (image,) = json.loads(printed.getvalue())["images"]
        found[row] = image["masks"]
    return found


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a table of 48 pictures."""
    return make_pictures(tmp_path_factory.mktemp("pictures"), 48)


@pytest.fixture(scope="session")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output of a job that nothing disturbed, in parts of two images."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    done = batch(pictures, "-o", out, "--batch-size", "2")
    assert "arning" not in done.stderr, done.stderr
    return out


@pytest.fixture(scope="session")
def assert_same_rows() -> Callable[[Path, Path], None]:
    def check(out: Path, other: Path) -> None:
        assert masks_of(out) == masks_of(other)

    return check
