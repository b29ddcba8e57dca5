"""How the cost of a bundle grows: with prompts, points, image size and the number of images."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glesam_benchmark.figures import Figures, figures
from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import BackendError
from glesam_runtime.option_groups import to_arguments
from glesam_runtime.predictor import GleSamPredictor
from glesam_runtime.prompts import check_prompts

Axis = Literal["prompts", "points", "preprocessing", "postprocessing", "images"]
AXES: tuple[Axis, ...] = get_args(Axis)
WORDS: dict[Axis, tuple[str, str]] = {
    "prompts": ("prompts in one decoder call", "prompts"),
    "points": ("points of one prompt, decoder", "points"),
    "preprocessing": ("image to tensor, by its longest side", "pixels"),
    "postprocessing": ("logits to one mask, by the image's longest side", "pixels"),
    "images": ("images in one glesam-run, process and files included", "images"),
}
"""What is timed, and what the sizes count."""

PROMPTS = (1, 4, 16, 64)
POINTS = (1, 2, 4, 8)
SIDES = (512, 1024, 2048, 4096)
IMAGES = (1, 2, 4, 8)
_SHAPE = 3 / 4
"""Height of an image over its width."""


class Point(msgspec.Struct, frozen=True):
    """One size."""

    size: int
    seconds: Figures


class Series(msgspec.Struct, frozen=True):
    """One way to grow."""

    axis: Axis
    points: tuple[Point, ...]


class Growth(msgspec.Struct, frozen=True):
    """One engine."""

    engine: dict[str, str]
    series: tuple[Series, ...]


def grow(bundle: Bundle, choice: RequestedEngine, rounds: int) -> Growth:
    """Measure every axis.

    Raises:
        BackendError: the engine is missing or cannot run it.
    """
    engine, series = _in_process(bundle, choice, rounds)
    # By now the engine here has gone: glesam-run loads one of its own.
    return Growth(engine, (*series, _images(bundle, choice, _picture(bundle), rounds)))


def _in_process(
    bundle: Bundle, choice: RequestedEngine, rounds: int
) -> tuple[dict[str, str], list[Series]]:
    """All axes but the number of images, and the engine's description."""
    predictor = GleSamPredictor(
        bundle, backend=choice.backend, device=choice.device, options=choice.options()
    )
    picture = _picture(bundle)
    predictor.set_image(picture)
    sides = {size: _resized(picture, size) for size in SIDES}
    return predictor.engine.describe(), [
        _series("prompts", PROMPTS, lambda n: _decode(predictor, n, 1), rounds),
        _series("points", POINTS, lambda n: _decode(predictor, 1, n), rounds),
        _series("preprocessing", SIDES, lambda n: _preprocess(predictor, sides[n]), rounds),
        _series("postprocessing", SIDES, lambda n: _binarize(predictor, sides[n]), rounds),
    ]


def _series(
    axis: Axis,
    sizes: Iterable[int],
    prepare: Callable[[int], Callable[[], object]],
    rounds: int,
    warm_up: bool = True,
) -> Series:
    """Time what `prepare` returns for each size, `rounds` times after one that warms up."""
    points = []
    for size in sizes:
        call = prepare(size)
        if warm_up:
            call()
        seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        points.append(Point(size, figures(seconds)))
    return Series(axis, tuple(points))


def _decode(predictor: GleSamPredictor, prompts: int, points: int) -> Callable[[], object]:
    """Decode so many prompts of so many points, spread over the image that is set."""
    height, width = predictor.geometry.original
    rng = np.random.default_rng(0)
    coords = rng.uniform(0, (width, height), (prompts, points, 2))
    batch = check_prompts(predictor.geometry, coords, np.ones((prompts, points)))
    return lambda: predictor.decode(batch, multimask_output=False)


def _preprocess(predictor: GleSamPredictor, picture: NDArray[np.uint8]) -> Callable[[], object]:
    from glesam_runtime.image import preprocess

    rules = predictor.bundle.manifest.preprocessing
    return lambda: preprocess(picture, rules)


def _binarize(predictor: GleSamPredictor, picture: NDArray[np.uint8]) -> Callable[[], object]:
    """One mask at the picture's size; its values do not matter to the time it takes."""
    from glesam_runtime import masks
    from glesam_runtime.image import geometry_of

    manifest = predictor.bundle.manifest
    rules = manifest.preprocessing
    height, width = picture.shape[:2]
    geometry = geometry_of(height, width, rules.image_size, rules.resize)
    side = rules.image_size // 4
    low_res = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    return lambda: masks.binarize(low_res, geometry, manifest.postprocessing)


def _images(
    bundle: Bundle, choice: RequestedEngine, picture: NDArray[np.uint8], rounds: int
) -> Series:
    """Run glesam-run on so many files, from the start of the process to the last mask on disk."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.png" for number in range(max(IMAGES))]
        for file in files:
            Image.fromarray(picture).save(file)
        height, width = picture.shape[:2]
        prompt = ["--points", f"{width // 2},{height // 2}", "-o", str(Path(folder) / "out")]
        program = [sys.executable, "-m", "glesam_runtime", "--bundle", str(bundle.path), *prompt]
        program += to_arguments(choice)

        def prepare(count: int) -> Callable[[], object]:
            return lambda: _run([*program, *map(str, files[:count])])

        # A process of its own has to warm up each time: that is part of what it costs.
        return _series("images", IMAGES, prepare, rounds, warm_up=False)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        raise BackendError(f"glesam-run ended with exit code {done.returncode}: {lines[-1]}")


def _picture(bundle: Bundle) -> NDArray[np.uint8]:
    """The golden image."""
    return load_golden(bundle)["image"].astype(np.uint8)


def _resized(picture: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """The picture stretched to so many pixels across, three quarters as high."""
    size = longest, int(longest * _SHAPE)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
