"""Paint scenes once and keep them on disk, for trainings that see each of them many times."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from glesam_evaluation.datasets import Sample
from glesam_evaluation.datasets.stand_ins import MIN_AREA
from glesam_evaluation.scenes import make_scene
from glesam_runtime.staging import staged_file


class StoredScenes:
    """A `Dataset` over arrays on disk: images and instance numbers of scenes FIRST..FIRST+N-1."""

    def __init__(self, path: Path, first: int, count: int) -> None:
        self.path, self.first, self.count = path, first, count
        self._arrays: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def names(self) -> Sequence[str]:
        """Return a name for each scene, made of its seed."""
        return [f"scene-{self.first + index}" for index in range(self.count)]

    @property
    def fingerprint(self) -> str:
        """Return which scenes these are."""
        return f"scenes:{self.count}@{self.first}"

    def first_pictures(self, count: int) -> StoredScenes:
        """Return the first `count` scenes."""
        return type(self)(self.path, self.first, min(count, self.count))

    def painted(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return RGB [size, size, 3] and each pixel's instance number, 0 for the background."""
        stored = np.asarray(self._open()[index])
        image, instances = cv2.cvtColor(stored, cv2.COLOR_RGBA2RGB), cv2.extractChannel(stored, 3)
        return np.asarray(image, np.uint8), np.asarray(instances, np.uint8)

    def __getitem__(self, index: int) -> Sample:
        image, instances = self.painted(index)
        return Sample(f"scene-{self.first + index}", image, _masks(instances))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_arrays": None}

    def _open(self) -> npt.NDArray[np.uint8]:
        if self._arrays is None:
            self._arrays = np.load(self.path, mmap_mode="r")
        return self._arrays


class WideScenes(StoredScenes):
    """Scenes cut to 4:3 and 16:9 in turn: the upper part of each, in its full width."""

    SHAPES = ((4, 3), (16, 9))

    @property
    def fingerprint(self) -> str:
        """Return which scenes these are, and how they are cut."""
        return f"{super().fingerprint}, cut to 4:3 and 16:9"

    def painted(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return RGB [height, size, 3] and each pixel's instance number, 0 for the background."""
        image, instances = super().painted(index)
        across, down = self.SHAPES[index % len(self.SHAPES)]
        height = len(image) * down // across
        return image[:height], instances[:height]


class Varied:
    """A `Dataset` of scenes turned, mirrored, and with less pattern, colour, light and sharpness.

    Painted scenes are patterned, colourful, evenly lit and sharp everywhere; photographs often are
    not. Picture i depends on i alone, and there are `copies` of every scene.
    """

    PLAIN = 0.6
    """Share of the pictures in which every surface keeps only a part of its pattern."""

    GRAY = 0.4
    """Share of the pictures without colour."""

    LIT = 0.4
    """Share of the pictures with more light on one side."""

    SOFT = 0.3
    """Share of the pictures that are slightly out of focus."""

    def __init__(self, scenes: StoredScenes, copies: int, seed: int) -> None:
        self.scenes, self.copies, self.seed = scenes, copies, seed

    def __len__(self) -> int:
        return len(self.scenes) * self.copies

    @property
    def names(self) -> Sequence[str]:
        """Return the scene's name with the copy's number, for each picture."""
        return [f"{name}-{copy}" for copy in range(self.copies) for name in self.scenes.names]

    @property
    def fingerprint(self) -> str:
        """Return which scenes these are, and how they are varied."""
        return f"{self.copies} x {self.scenes.fingerprint}, varied with seed {self.seed}"

    def __getitem__(self, index: int) -> Sample:
        number = index % len(self.scenes)
        image, instances = self.scenes.painted(number)
        rng = np.random.default_rng((self.seed, index))
        seen = image.astype(np.float32)
        if rng.uniform() < self.PLAIN:
            flat = _flat(image, instances)
            kept = rng.uniform(0.05, 1, 256).astype(np.float32)
            seen = _three(cv2.LUT(instances, kept)) * (seen - flat) + flat
        if rng.uniform() < self.GRAY:
            weights = rng.dirichlet((2, 4, 1)).astype(np.float32)  # on average close to luminance
            seen = _three(seen @ weights)
        if rng.uniform() < self.LIT:
            seen *= _three(_light(rng, *instances.shape))
        if rng.uniform() < self.SOFT:
            seen = np.asarray(cv2.GaussianBlur(seen, (0, 0), rng.uniform(0.5, 1.5)))
        middle, contrast = seen.mean(), np.float32(rng.uniform(0.4, 1.1))
        seen = (seen - middle) * contrast + middle * np.float32(rng.uniform(0.5, 1.2))
        image = np.clip(np.rint(seen, out=seen), 0, 255, out=seen).astype(np.uint8)
        turns, mirrored = int(rng.integers(4)), rng.uniform() < 0.5
        # Turn the instance map and not the masks, which are ten times as much to copy.
        image, instances = (_turned(each, turns, mirrored) for each in (image, instances))
        return Sample(f"scene-{self.scenes.first + number}-{index}", image, _masks(instances))


def _masks(instances: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Return masks [N, H, W] of the instances that are large enough, or of the largest one."""
    areas = np.bincount(instances.ravel())
    areas[0] = 0
    kept = np.flatnonzero(areas >= MIN_AREA * instances.size)
    if not kept.size:
        kept = np.asarray([areas.argmax()])
    return np.asarray(instances[None] == kept.astype(np.uint8)[:, None, None])


def _flat(
    image: npt.NDArray[np.uint8], instances: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """Return the image with every instance and the background in its mean colour: [H, W, 3]."""
    # OpenCV is several times as fast: on [H, W, 3] numpy works in runs of three numbers.
    shown = instances.ravel().astype(np.intp)
    areas = np.bincount(shown, minlength=256).clip(min=1)
    means = [np.bincount(shown, channel.ravel(), 256) / areas for channel in cv2.split(image)]
    table = np.stack(means, axis=1).astype(np.float32)[None]
    return np.asarray(cv2.LUT(cv2.merge([instances] * 3), table), np.float32)


def _three(values: npt.NDArray[np.float32] | cv2.typing.MatLike) -> npt.NDArray[np.float32]:
    """Repeat one channel [H, W] three times, [H, W, 3]."""
    return np.asarray(cv2.merge([values] * 3), np.float32)


_ROTATIONS = {
    1: cv2.ROTATE_90_COUNTERCLOCKWISE,
    2: cv2.ROTATE_180,
    3: cv2.ROTATE_90_CLOCKWISE,
}


def _turned(image: npt.NDArray[np.uint8], turns: int, mirrored: bool) -> npt.NDArray[np.uint8]:
    """Turn an image left by right angles, then mirror it if asked to."""
    if turns:
        image = np.asarray(cv2.rotate(image, _ROTATIONS[turns]), np.uint8)
    return np.asarray(cv2.flip(image, 1), np.uint8) if mirrored else image


def _light(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """Return light that falls off towards one side, around 1: [H, W]."""
    angle, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.7)
    y = np.linspace(-strength, strength, height, dtype=np.float32)[:, None]
    x = np.linspace(-strength, strength, width, dtype=np.float32)[None, :]
    return np.asarray(1 + y * np.float32(np.sin(angle)) + x * np.float32(np.cos(angle))).clip(0.1)


def store_scenes(
    folder: Path,
    count: int,
    first: int,
    size: int,
    progress: Callable[[int], object] = lambda _: None,
) -> StoredScenes:
    """Paint scenes, unless the folder holds them: `[N, size, size, 4]` uint8, RGB and instance.

    Args:
        folder: where the file goes.
        count: number of scenes.
        first: seed of the first scene.
        size: side in pixels.
        progress: called with the number of scenes just painted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scenes-{first}-{count}-{size}.npy"
    if not path.is_file():
        # A fork of a process that has threads, as libraries start them, may lock up or crash.
        context = multiprocessing.get_context("spawn")
        with staged_file(path) as partial_path, ProcessPoolExecutor(mp_context=context) as pool:
            stored = np.lib.format.open_memmap(
                partial_path, "w+", dtype=np.uint8, shape=(count, size, size, 4)
            )
            scenes = pool.map(
                partial(_painted, size=size), range(first, first + count), chunksize=16
            )
            for index, scene in enumerate(scenes):
                stored[index] = scene
                progress(1)
            stored.flush()
    return StoredScenes(path, first, count)


def _painted(seed: int, size: int) -> npt.NDArray[np.uint8]:
    scene = make_scene(seed, size, size)
    return np.dstack([scene.image, scene.instances.astype(np.uint8)])
