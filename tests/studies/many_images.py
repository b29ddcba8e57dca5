"""Measure images a minute of `glesam-run *.jpg`: one at a time, overlapped, and in two streams.

Usage: many_images.py GLESAM_RUN [IMAGES] [ROUNDS] [OPTION ...]

The images are photographs of scikit-image, enlarged to the sizes that cameras and phones write,
with added grain. The three ways take turns, so that a machine that slows down slows all of them;
the result is the ratio of their medians. Options such as `--bundle DIR` go to glesam-run.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

BACKENDS = "onnxruntime", "openvino"
WAYS = {
    "one at a time": ("--in-flight", "1"),
    "overlapped": (),
    "overlapped, two streams": ("--streams", "2"),
}
PHOTOGRAPHS = (
    *("astronaut.png", "coffee.png", "chelsea.png", "rocket.jpg", "retina.jpg"),
    *("motorcycle_left.png", "coins.png", "ihc.png", "hubble_deep_field.jpg", "brick.png"),
)
SIZES = (1920, 1080), (3000, 2000), (2000, 1500), (4000, 3000)


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Write JPEG files of two to twelve megapixels."""
    import skimage

    source = Path(skimage.__file__).parent / "data"
    grain = np.random.default_rng(0)
    paths = []
    for index in range(count):
        size = SIZES[index % len(SIZES)]
        with Image.open(source / PHOTOGRAPHS[index % len(PHOTOGRAPHS)]) as photograph:
            large = photograph.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(large) + grain.integers(-6, 7, (size[1], size[0], 1))
        paths.append(folder / f"{index:03}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def images_a_minute(command: list[str], count: int) -> float:
    """Return the images a minute of one run, without its start."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    document = json.loads(done.stdout)
    if len(document["images"]) != count or any("error" in image for image in document["images"]):
        sys.exit("glesam-run left out an image")
    return 60 * count / float(document["seconds"])


def main() -> None:
    """Measure, and print medians and their ratios."""
    glesam_run = sys.argv[1]
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    options = sys.argv[4:]
    with tempfile.TemporaryDirectory() as folder:
        photographs = [str(path) for path in write_photographs(Path(folder), count)]
        rates: dict[tuple[str, str], list[float]] = {}
        for _ in range(rounds):
            for backend in BACKENDS:
                for name, way in WAYS.items():
                    command = [glesam_run, *photographs, "--points", "700,600", "--json"]
                    command += ["-o", f"{folder}/out", "--backend", backend, *way, *options]
                    rates.setdefault((backend, name), []).append(images_a_minute(command, count))
    print(f"{count} photographs, medians of {rounds} rounds")
    print(f"{'images a minute':<38} {'median':>7} {'min':>7} {'max':>7} {'ratio':>6}")
    for (backend, name), values in rates.items():
        median = statistics.median(values)
        ratio = median / statistics.median(rates[backend, next(iter(WAYS))])
        print(
            f"{backend:<13} {name:<24} {median:>7.1f} {min(values):>7.1f} {max(values):>7.1f} "
            f"{ratio:>6.2f}"
        )


if __name__ == "__main__":
    main()
