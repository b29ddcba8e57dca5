"""Time the encoder and the enhancer of a full-size bundle in float and in eight bits.

Usage: python -m tests.studies.eight_bits_full FLOAT INT8 [STAGE ...]

FLOAT is a float32 bundle, and INT8 the one that glesam-calibrate made from it. Each way runs in a
process of its own, on one thread, and the time is the least processor time of two runs, which other
processes change little.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from .pieces import ort, ov

WAYS = ("OpenVINO fp32", "OpenVINO bf16", "OpenVINO int8", "ONNX Runtime fp32", "ONNX Runtime int8")
RUNS = 2


def run_one(way: str, path: Path) -> None:
    """Print the least processor time of a graph."""
    engine, precision = way.rsplit(" ", 1)
    read = "fp32" if precision == "int8" else precision
    run = ov(path, read) if engine == "OpenVINO" else ort(path)
    side = (3, 1024, 1024) if path.name.startswith("encoder") else (256, 64, 64)
    name = "image" if side[0] == 3 else "image_embeddings"
    given = {name: np.random.default_rng(0).normal(size=(1, *side)).astype(np.float32)}
    run(given)
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        run(given)
        times.append(time.process_time() - start)
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    assert peak is not None
    print(f"{min(times):.3f} {int(peak[1]) * 1024 / 1e9:.2f}")


def main() -> None:
    """Print a row for each stage and way."""
    if sys.argv[1] == "--only":
        run_one(sys.argv[2], Path(sys.argv[3]))
        return
    plain, quantized, *stages = sys.argv[1:]
    for stage in stages or ("encoder", "enhancer"):
        print(f"{stage}:", flush=True)
        first = None
        for way in WAYS:
            graph = Path(quantized if way.endswith("int8") else plain, f"{stage}.onnx")
            command = [sys.executable, "-m", __spec__.name, "--only", way, str(graph)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seconds, peak = map(float, done.stdout.split())
            first = first or seconds
            print(
                f"  {way:<18} {seconds:6.2f} s, {first / seconds:.2f}x, peak {peak:.2f} GB",
                flush=True,
            )


if __name__ == "__main__":
    main()
