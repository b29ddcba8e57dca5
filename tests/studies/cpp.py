"""Compare the C++ library with the Python runtime on one engine: encode, prompt, cold start.

Usage: cpp.py PROGRAMS OUT [PRESET] [PRECISION]

PROGRAMS is a build folder of runtime/cpp. PRESET (default: sam_vit_b) is exported to OUT with
random weights unless it is already there. The two take turns, so that a machine that slows down
slows both; the result is the ratio of their medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from glesam_runtime import GleSamPredictor
from glesam_runtime.bundle import builtin_bundle_path
from glesam_runtime.engine_options import EngineOptions

ROUNDS, COLD_ROUNDS = 5, 7
WIDTH, HEIGHT = 1500, 1000


def main() -> None:
    """Measure and print."""
    programs, out = Path(sys.argv[1]), Path(sys.argv[2])
    preset = sys.argv[3] if len(sys.argv) > 3 else "sam_vit_b"
    precision = sys.argv[4] if len(sys.argv) > 4 else "bf16"
    out.mkdir(parents=True, exist_ok=True)
    bundle = out / preset
    if not bundle.is_dir():
        export = [sys.executable, "-m", "glesam_export", "onnx", "--preset", preset]
        subprocess.run([*export, "--random-weights", "0", "-o", bundle], check=True)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    _print_turns(bundle, programs, pixels, precision, out)
    _print_cold_start(programs, pixels, out)


def _print_turns(
    bundle: Path, programs: Path, pixels: np.ndarray, precision: str, out: Path
) -> None:
    (out / "image.rgb").write_bytes(pixels.tobytes())
    hint = "" if precision == "fp32" else precision
    command = [programs / "tests/bench", bundle, out / "image.rgb", WIDTH, HEIGHT, hint]
    options = EngineOptions(precision=precision)
    predictor = GleSamPredictor(bundle, backend="openvino", options=options)
    with subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cpp:
        assert cpp.stdin is not None
        assert cpp.stdout is not None
        if cpp.stdout.readline() != "ready\n":
            sys.exit("the benchmark program did not start")
        rows = []
        for _ in range(ROUNDS + 1):
            ours = _python_round(predictor, pixels)
            print("round", file=cpp.stdin, flush=True)
            rows.append((*ours, *map(float, cpp.stdout.readline().split())))
        cpp.stdin.close()
    columns = list(zip(*rows[1:], strict=True))  # the first round warms up
    encode, prompt, cpp_encode, cpp_prompt = (statistics.median(column) for column in columns)
    model = predictor.bundle.manifest.model
    print(f"{model.preset}, {model.unet}, OpenVINO {precision}, medians of {ROUNDS} rounds")
    print(f"{'seconds':<10} {'Python':>9} {'C++':>9} {'ratio':>7}")
    for name, python, cplusplus in (
        ("encode", encode, cpp_encode),
        ("prompt", prompt, cpp_prompt),
    ):
        print(f"{name:<10} {python:>9.4f} {cplusplus:>9.4f} {cplusplus / python:>7.3f}")


def _python_round(predictor: GleSamPredictor, pixels: np.ndarray) -> tuple[float, float]:
    """Return the seconds of one encoding and of one prompt."""
    start = time.perf_counter()
    predictor.set_image(pixels)
    encoded = time.perf_counter()
    point = np.asarray([[WIDTH / 2, HEIGHT / 2]])
    predictor.predict(point, np.ones(1), multimask_output=False)
    return encoded - start, time.perf_counter() - encoded


def _print_cold_start(programs: Path, pixels: np.ndarray, out: Path) -> None:
    """Measure nano from the start of the process to a mask on disk, and print it."""
    image = out / "image.png"
    Image.fromarray(pixels[:480, :640]).save(image)
    run = [str(image), "--points", "320,240", "-o", str(out)]
    nano = str(builtin_bundle_path())
    commands = {
        "glesam-cpp": [str(programs / "tools/glesam-cpp"), *run, "--bundle", nano],
        "glesam-run": [sys.executable, "-m", "glesam_runtime", *run, "--bundle", nano],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(COLD_ROUNDS + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=os.environ)
            if number:
                times[name].append(time.perf_counter() - start)
    print(f"process start to a mask on disk, nano, medians of {COLD_ROUNDS} runs")
    for name, values in times.items():
        print(f"{name:<10} {statistics.median(values):>9.2f} s")


if __name__ == "__main__":
    main()
