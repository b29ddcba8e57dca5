"""Measure the cold start: a process from its start to its end, as a ratio to `import torch`.

Usage: cold_start.py GLESAM_RUN TORCH_PYTHON [ROUNDS]

All commands take turns, so that a machine that slows down slows all of them. Wall time is what a
user waits for; processor time does not depend on other processes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

TORCH = "import torch"


def seconds(command: list[str]) -> tuple[float, float]:
    """Return wall time and processor time of one run."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, os.times()
    spent = after.children_user + after.children_system
    return wall, spent - before.children_user - before.children_system


def commands_of(glesam_run: str, torch_python: str, folder: str) -> dict[str, list[str]]:
    """Return the measured commands by name."""
    first_mask = [glesam_run, f"{folder}/image.png", "--points", "320,240", "-o", folder]
    openvino = [*first_mask, "--backend", "openvino"]
    return {
        TORCH: [torch_python, "-c", TORCH],
        "--help": [glesam_run, "--help"],
        "first mask, onnxruntime": [*first_mask, "--backend", "onnxruntime"],
        "first mask, openvino": openvino,
        "first mask, openvino, --cache": [*openvino, "--cache", f"{folder}/cache"],
    }


def main() -> None:
    """Measure, and print medians and their ratios."""
    glesam_run, torch_python, *rest = sys.argv[1:]
    rounds = int(rest[0]) if rest else 7
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{folder}/image.png")
        commands = commands_of(glesam_run, torch_python, folder)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for round_number in range(rounds + 1):
            for name, command in commands.items():
                measured = seconds(command)
                if round_number:  # the first fills the page cache and --cache
                    times[name].append(measured)
        if not Path(folder, "image_mask.png").is_file():
            sys.exit("glesam-run wrote no mask")
    medians = {
        name: [statistics.median(column) for column in zip(*runs, strict=True)]
        for name, runs in times.items()
    }
    print(f"{'medians of ' + str(rounds) + ' runs, s':<32} {'wall':>6} {'ratio':>6}", end="")
    print(f" {'min':>6} {'max':>6} {'cpu':>6} {'ratio':>6}")
    for name, (wall, spent) in medians.items():
        walls = [run[0] for run in times[name]]
        print(
            f"{name:<32} {wall:>6.2f} {wall / medians[TORCH][0]:>6.2f} {min(walls):>6.2f} "
            f"{max(walls):>6.2f} {spent:>6.2f} {spent / medians[TORCH][1]:>6.2f}"
        )


if __name__ == "__main__":
    main()
