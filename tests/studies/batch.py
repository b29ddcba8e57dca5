"""Measure images a second of glesam-batch on this machine beside `glesam-run --streams`.

Usage: python -m tests.studies.batch [IMAGES] [ROUNDS] [BACKEND ...]

Both commands segment the same small procedural pictures with the same two boxes, and take turns, so
that a machine that slows down slows both. The ratio is given with the start of the command, and
without it: from the first image in an encoder to the last mask. Every mask of both is compared.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tests.batch.conftest import BATCH, make_pictures, masks_of

from glesam_runtime.backends import installed

BOXES = ("--box", "5,5,45,45", "--box", "20,10,60,60")
RUN = "import sys; from glesam_runtime.cli import main; sys.argv[0] = 'glesam-run'; main()"


class Measured(NamedTuple):
    """One run of a command."""

    whole: float
    """Images a second of the whole command."""
    steady: float
    """Images a second without its start."""
    masks: list[Any]
    """Counts and scores, in the order of the images."""


def run_command(words: list[str]) -> tuple[dict[str, Any], float]:
    """Return what a command prints as JSON, and its seconds."""
    start = time.perf_counter()
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return json.loads(done.stdout), time.perf_counter() - start


def of_run(pictures: Path, count: int, backend: str) -> Measured:
    """Measure glesam-run with a stream for each core."""
    streams = str(len(os.sched_getaffinity(0)))
    words = [sys.executable, "-c", RUN, str(pictures), *BOXES, "--json", "--no-files"]
    found, seconds = run_command([*words, "--backend", backend, "--streams", streams])
    masks = [
        (mask["rle"]["counts"], mask["predicted_iou"])
        for image in found["images"]
        for mask in image["masks"]
    ]
    return Measured(count / seconds, count / found["seconds"], masks)


def of_batch(pictures: Path, count: int, backend: str, out: Path) -> Measured:
    """Measure glesam-batch on a cluster of its own."""
    words = [sys.executable, "-c", BATCH, str(pictures), *BOXES, "--json", "-o", str(out)]
    found, seconds = run_command([*words, "--backend", backend])
    start = found["start_seconds"]
    print(f"    stages {found['stage_seconds']}, {start} s until the first image was encoded")
    masks = [(row["counts"], row["predicted_iou"]) for row in masks_of(out)]
    return Measured(count / seconds, count / (found["seconds"] - start), masks)


def main() -> None:
    """Measure, and print medians and their ratio."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    backends = sys.argv[3:] or installed()
    print(f"{count} pictures, medians of {rounds} rounds, {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pictures(folder / "pictures", count).unlink()
        for backend in backends:
            runs, batches = [], []
            for index in range(rounds):
                runs.append(of_run(folder / "pictures", count, backend))
                batches.append(
                    of_batch(folder / "pictures", count, backend, folder / f"{backend}{index}")
                )
                same = runs[-1].masks == batches[-1].masks
                print(f"    {len(batches[-1].masks)} masks are {'equal' if same else 'UNEQUAL'}")
            for part in ("whole", "steady"):
                run = statistics.median(getattr(each, part) for each in runs)
                batch = statistics.median(getattr(each, part) for each in batches)
                label = "with start" if part == "whole" else "without start"
                print(
                    f"{backend:<12} {label:<14} glesam-run {run:7.1f}/s  glesam-batch "
                    f"{batch:7.1f}/s  ratio {batch / run:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
