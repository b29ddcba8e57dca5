"""Choose the images that a bundle is calibrated on, and the level of each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from glesam_evaluation.conditions import show
from glesam_evaluation.datasets.sample import name_some
from glesam_evaluation.datasets.stand_ins import ImageSource, find_sources, scene_sources
from glesam_evaluation.seeds import derive
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import CalibrationSample, Level

LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class CalibrationImage:
    """One image at one level."""

    source: ImageSource
    record: CalibrationSample

    def image(self, seed: int) -> NDArray[np.uint8]:
        """Return the degraded image that the chain gets, uint8 RGB [H,W,3].

        Raises:
            InputError: the image cannot be read any more, or has changed.
        """
        pixels = self.source.read()
        if _hash(pixels) != self.record.sha256:
            raise InputError(
                f"{self.source.name}: has changed since the calibration began; start it over"
            )
        return show(pixels, self.record.level, seed, self.source.name)


@dataclass(frozen=True)
class CalibrationSet:
    """The images that a bundle is calibrated on."""

    samples: tuple[CalibrationImage, ...]
    seed: int
    procedural: bool
    skipped: tuple[str, ...]
    """Error messages of the files that could not be read."""


def choose_samples(
    places: Sequence[Path], count: int, seed: int, warn: Callable[[str], object]
) -> CalibrationSet:
    """Choose as many different images as there are, with the levels in turn.

    An image is used at most once at each level. If there are more images than samples, the seed
    decides which are used. Another file replaces one that cannot be read.

    Args:
        places: see `find_sources`; empty uses procedural images.
        count: number of samples.
        seed: seed of the choice of images and of the degradations.
        warn: called if files are skipped, or if there are fewer samples than `count`.

    Raises:
        InputError: `count` is below 1, there are no images, or none can be read.
    """
    if count < 1:
        raise InputError(f"{count} samples: at least 1 is needed")
    sources = find_sources(places) if places else scene_sources(count)
    readable, skipped = _read(_shuffled(sources, seed) if places else iter(sources), count)
    if not readable:
        raise InputError(f"none of {len(skipped)} images can be read: {name_some(skipped)}")
    if skipped:
        warn(f"{len(skipped)} of {len(sources)} images skipped: {name_some(skipped)}")
    samples = [
        CalibrationImage(
            source, CalibrationSample(source.name, sha256, LEVELS[(index + turn) % len(LEVELS)])
        )
        for turn in range(len(LEVELS))
        for index, (source, sha256) in enumerate(readable)
    ][:count]
    if len(samples) < count:
        warn(
            f"{len(samples)} samples instead of {count}: there are {len(readable)} images at "
            f"{len(LEVELS)} levels; give more images"
        )
    return CalibrationSet(tuple(samples), seed, not places, tuple(skipped))


def _shuffled(sources: Sequence[ImageSource], seed: int) -> Iterator[ImageSource]:
    rng = np.random.default_rng(derive(seed, "calibration images"))
    return (sources[index] for index in rng.permutation(len(sources)))


def _read(
    sources: Iterator[ImageSource], count: int
) -> tuple[list[tuple[ImageSource, str]], list[str]]:
    """Return the first `count` readable images with hashes, and error messages for the others."""
    readable: list[tuple[ImageSource, str]] = []
    skipped: list[str] = []
    for source in sources:
        if len(readable) == count:
            break
        try:
            readable.append((source, _hash(source.read())))
        except InputError as error:
            skipped.append(str(error))
    return readable, skipped


def _hash(pixels: NDArray[np.uint8]) -> str:
    """Return the SHA-256 of height, width and RGB bytes; it does not depend on the file format."""
    head = f"{pixels.shape[0]} {pixels.shape[1]} ".encode("ascii")
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()
