"""Cold start: process start to mask on disk, beside `import torch`, as a ratio.

Usage: cold_start.py GLESAM_RUN TORCH_PYTHON

The two take turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROUNDS = 7


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure, and print medians and their ratio."""
    glesam_run, torch_python = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.png"
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
        commands = {
            "glesam-run on nano": [glesam_run, str(image), "--points", "320,240", "-o", folder],
            "import torch": [torch_python, "-c", "import torch"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for round_number in range(ROUNDS + 1):
            for name, command in commands.items():
                elapsed = seconds(command)
                if round_number:  # the first warms the page cache
                    times[name].append(elapsed)
        if not (Path(folder) / "image_mask.png").is_file():
            sys.exit("glesam-run wrote no mask")
    print(f"{'':<20} {'median':>8} {'min':>8} {'max':>8}   seconds of {ROUNDS} runs")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<20} {median:>8.2f} {min(values):>8.2f} {max(values):>8.2f}")
    ours, theirs = (statistics.median(values) for values in times.values())
    print(f"ratio of medians     {ours / theirs:>8.2f}   (below 1: faster than importing torch)")


if __name__ == "__main__":
    main()
