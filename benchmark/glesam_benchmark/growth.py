"""Measure how a bundle's cost grows with prompts, points, image size and number of images."""

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

from glesam_benchmark.timing import Timing, summarize
from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import BackendError
from glesam_runtime.option_groups import to_arguments
from glesam_runtime.predictor import GleSamPredictor
from glesam_runtime.prompts import check_prompts

Axis = Literal["prompts", "points", "preprocessing", "postprocessing", "images"]
AXES: tuple[Axis, ...] = get_args(Axis)
AXIS_LABELS: dict[Axis, tuple[str, str]] = {
    "prompts": ("prompts in one decoder call", "prompts"),
    "points": ("points of one prompt, decoder", "points"),
    "preprocessing": ("image to tensor, by its longest side", "pixels"),
    "postprocessing": ("logits to one mask, by the image's longest side", "pixels"),
    "images": ("images in one glesam-run, process and files included", "images"),
}
"""What each axis times, and the unit of its sizes."""

PROMPTS = (1, 4, 16, 64)
POINTS = (1, 2, 4, 8)
SIDES = (512, 1024, 2048, 4096)
IMAGES = (1, 2, 4, 8)
_SHAPE = 3 / 4
"""Height of the test images over their width."""


class Point(msgspec.Struct, frozen=True):
    """The timing at one size."""

    size: int
    seconds: Timing


class Series(msgspec.Struct, frozen=True):
    """The timings along one axis."""

    axis: Axis
    points: tuple[Point, ...]


class Growth(msgspec.Struct, frozen=True):
    """The series of one engine."""

    engine: dict[str, str]
    series: tuple[Series, ...]


def measure_growth(bundle: Bundle, choice: RequestedEngine, rounds: int) -> Growth:
    """Measure every axis.

    Raises:
        BackendError: the engine is missing or cannot run the bundle.
    """
    engine, series = _in_process(bundle, choice, rounds)
    # `_in_process` has released its engine by now; glesam-run loads its own.
    return Growth(engine, (*series, _images(bundle, choice, _picture(bundle), rounds)))


def _in_process(
    bundle: Bundle, choice: RequestedEngine, rounds: int
) -> tuple[dict[str, str], list[Series]]:
    """Measure every axis except the number of images; also return the engine's description."""
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
    """Time what `prepare` returns for each size, `rounds` times after an optional warm-up call."""
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
        points.append(Point(size, summarize(seconds)))
    return Series(axis, tuple(points))


def _decode(predictor: GleSamPredictor, prompts: int, points: int) -> Callable[[], object]:
    """Return a call that decodes random prompts with the given number of points each."""
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
    """Return a call that makes one mask at the picture's size, from random logits."""
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
    """Time glesam-run on several files, from the start of the process to the last mask on disk."""
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

        # No warm-up call: every process has to warm up, and that is part of the cost.
        return _series("images", IMAGES, prepare, rounds, warm_up=False)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise BackendError(f"glesam-run ended with exit code {done.returncode}: {lines[-1]}")


def _picture(bundle: Bundle) -> NDArray[np.uint8]:
    """Return the golden image."""
    return load_golden(bundle)["image"].astype(np.uint8)


def _resized(picture: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Return the picture resized to a width, with three quarters of it as height."""
    size = longest, int(longest * _SHAPE)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR))
