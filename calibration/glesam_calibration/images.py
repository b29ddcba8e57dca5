"""Which images a bundle is calibrated on, and at which level each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from glesam_evaluation.conditions import show
from glesam_evaluation.seeds import derive
from glesam_evaluation.datasets.folder import image_files
from glesam_evaluation.datasets.stand_ins import SceneDataset
from glesam_evaluation.datasets.sample import name_some, printable
from glesam_runtime.errors import InputError
from glesam_runtime.image import read_image
from glesam_runtime.manifest import CalibrationSample, Level

LEVELS: tuple[Level, ...] = get_args(Level)
FIRST_SCENE = 1_000_000
"""Seed of the first procedural image: far from those that trainings and evaluations start at."""


@dataclass(frozen=True)
class Source:
    """An image as it was found: a file, or the procedural scene of a seed."""

    name: str
    path: Path | None
    scene: int | None = None

    def read(self) -> NDArray[np.uint8]:
        """Its pixels, uint8 RGB [H,W,3].

        Raises:
            InputError: the file cannot be read.
        """
        if self.path is not None:
            return read_image(self.path)
        assert self.scene is not None, "a source is a file or a scene"
        return SceneDataset(1, self.scene)[0].image


@dataclass(frozen=True)
class Sample:
    """One image at one level."""

    source: Source
    record: CalibrationSample

    def image(self, seed: int) -> NDArray[np.uint8]:
        """The image as the chain gets it.

        Raises:
            InputError: it cannot be read any more, or is not the one it was.
        """
        pixels = self.source.read()
        if _hash(pixels) != self.record.sha256:
            raise InputError(f"{self.source.name}: has changed since the calibration began")
        return show(pixels, self.record.level, seed, self.source.name)


@dataclass(frozen=True)
class Samples:
    """What a bundle is calibrated on."""

    samples: tuple[Sample, ...]
    seed: int
    procedural: bool
    skipped: tuple[str, ...]
    """Files that could not be read, and why."""


def find_sources(places: Sequence[Path]) -> list[Source]:
    """Image files, of folders all that lie in them, of a .txt the paths in it, one a line.

    Raises:
        InputError: nothing there, or a folder without images.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            files = image_files(place)
            if not files:
                raise InputError(f"{place}: no images in this folder")
            found += files
        elif place.suffix.lower() == ".txt":
            found += _listed(place)
        elif not place.exists():
            raise InputError(f"{place}: no such file or folder")
        else:
            found.append(place)
    return [Source(printable(path.name), path) for path in dict.fromkeys(found)]


def _listed(file: Path) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as a list of paths ({error})") from error
    paths = [file.parent / line.strip() for line in lines if line.strip()]
    if not paths:
        raise InputError(f"{file}: lists no images")
    return paths


def choose_samples(
    places: Sequence[Path], count: int, seed: int, warn: Callable[[str], object]
) -> Samples:
    """Choose images and levels: as many images as there are, levels in turn.

    Each image is taken at most once at each level; with more images than samples, the seed decides
    which. A file that cannot be read is skipped, and another takes its place.

    Args:
        places: see `find_sources`; none is procedural images.
        count: of samples.
        seed: decides images and degradations.
        warn: told of skipped files, and of fewer samples than asked for.

    Raises:
        InputError: `count` below 1, no images, or none that can be read.
    """
    if count < 1:
        raise InputError(f"{count} samples: at least 1 is needed")
    if places:
        sources = find_sources(places)
    else:
        sources = [Source(f"scene-{FIRST_SCENE + i}", None, FIRST_SCENE + i) for i in range(count)]
    readable, skipped = _read(_shuffled(sources, seed) if places else iter(sources), count)
    if not readable:
        raise InputError(f"none of {len(skipped)} images can be read: {name_some(skipped)}")
    if skipped:
        warn(f"{len(skipped)} of {len(sources)} images skipped: {name_some(skipped)}")
    samples = [
        Sample(source, CalibrationSample(source.name, sha256, LEVELS[(index + turn) % len(LEVELS)]))
        for turn in range(len(LEVELS))
        for index, (source, sha256) in enumerate(readable)
    ][:count]
    if len(samples) < count:
        warn(
            f"{len(samples)} samples instead of {count}: {len(readable)} images at "
            f"{len(LEVELS)} levels are all there is"
        )
    return Samples(tuple(samples), seed, not places, tuple(skipped))


def _shuffled(sources: Sequence[Source], seed: int) -> Iterator[Source]:
    rng = np.random.default_rng(derive(seed, "calibration images"))
    return (sources[index] for index in rng.permutation(len(sources)))


def _read(sources: Iterator[Source], count: int) -> tuple[list[tuple[Source, str]], list[str]]:
    """The first `count` that can be read with their hashes, and what is wrong with the others."""
    readable: list[tuple[Source, str]] = []
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
    """SHA-256 of height, width and RGB bytes: the same for every file that shows this image."""
    head = f"{pixels.shape[0]} {pixels.shape[1]} ".encode("ascii")
    return hashlib.sha256(head + np.ascontiguousarray(pixels).tobytes()).hexdigest()
