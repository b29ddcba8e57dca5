"""Measure what each engine costs to start and what an image and a prompt cost then.

Usage: start_and_rate.py [BUNDLE] [--rounds N] [--threads N]

`auto` orders the engines of small bundles by these costs (glesam_runtime/engine_pace.py). Engines
take turns, each time in a process of its own. On a busy machine wall time is that of the others;
processor time then is the better figure, but includes the spinning of threads that wait.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ENGINES = ("onnxruntime", "openvino")
IMAGES, PROMPTS = 12, 12


def measure(engine: str, bundle: str | None, threads: int) -> dict[str, list[float]]:
    """Return wall and processor seconds of the start, of an image and of a prompt."""
    started = _now()
    from glesam_runtime import EngineOptions, GleSamPredictor

    predictor = GleSamPredictor(bundle, backend=engine, options=EngineOptions(threads=threads))
    start = _since(started)
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    point = np.array([[320.0, 240.0]])
    predictor.set_image(pixels)
    predictor.predict(point, np.ones(1))  # the first run of a graph allocates
    return {
        "start": start,
        "image": _least(lambda: predictor.set_image(pixels), IMAGES),
        "prompt": _least(lambda: predictor.predict(point, np.ones(1)), PROMPTS),
    }


def _least(call: Callable[[], object], times: int) -> list[float]:
    found = []
    for _ in range(times):
        before = _now()
        call()
        found.append(_since(before))
    return [min(column) for column in zip(*found, strict=True)]


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(before: tuple[float, float]) -> list[float]:
    return [now - then for now, then in zip(_now(), before, strict=True)]


def main() -> None:
    """Measure in turns, and print the least of each cost and where OpenVINO starts to pay."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--engine", help="measure this engine once, and print JSON")
    given = parser.parse_args()
    if given.engine:
        print(json.dumps(measure(given.engine, given.bundle, given.threads)))
        return
    runs: dict[str, list[dict[str, list[float]]]] = {name: [] for name in ENGINES}
    for _ in range(given.rounds):
        for name in ENGINES:
            command = [sys.executable, str(Path(__file__)), "--engine", name]
            command += ["--threads", str(given.threads), *([given.bundle] if given.bundle else [])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs[name].append(json.loads(done.stdout))
    least = {
        name: {
            what: [min(run[what][clock] for run in found) for clock in (0, 1)]
            for what in ("start", "image", "prompt")
        }
        for name, found in runs.items()
    }
    for clock, title in enumerate(("wall", "processor")):
        print(f"{title} ms, least of {given.rounds} processes, {given.threads} thread(s)")
        for name, costs in least.items():
            cells = "  ".join(f"{what} {1e3 * cost[clock]:.1f}" for what, cost in costs.items())
            print(f"  {name:<12} {cells}")
        first, second = (least[name] for name in ENGINES)
        more = second["start"][clock] - first["start"][clock]
        for what in ("image", "prompt"):
            saved = first[what][clock] - second[what][clock]
            pays = f"{more / saved:.0f} {what}s on" if saved > 0 else f"no number of {what}s"
            print(f"  openvino pays from {pays}")


if __name__ == "__main__":
    main()
