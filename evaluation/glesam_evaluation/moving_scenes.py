"""Make procedural videos with exact masks: objects move, turn, grow and are hidden for a while.

The surfaces and outlines are those of `scenes`. A board crosses the picture from a third to five
sixths of the video and hides what lies behind it. A seed fully determines a video, and no file is
read.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from glesam_evaluation.outlines import Contour, random_outline
from glesam_evaluation.scenes import Scene
from glesam_evaluation.seeds import derive, generator
from glesam_evaluation.textures import FloatImage, Palette, noise_field, random_texture
from glesam_runtime.errors import InputError

_PATCH = 256
"""Side in pixels of the surface of an object, which is scaled to the object's size."""
_RADIUS = 100.0
"""Radius in pixels of the outline on that surface."""


@dataclass(frozen=True, eq=False)
class _Thing:
    """An object: its outline and surface, and how it moves."""

    contours: tuple[Contour, ...]
    """Around the centre of the surface, with a radius of about `_RADIUS`."""
    surface: FloatImage
    """float32 [_PATCH, _PATCH, 3]."""
    centre: tuple[float, float]
    """(x, y) of the middle of its path, in pixels."""
    reach: tuple[float, float]
    """Largest distance from there along each axis, in pixels."""
    turns: tuple[float, float, float]
    """Periods of its path along both axes and of its size, per video."""
    phases: tuple[float, float, float]
    radius: float
    """Mean radius in pixels."""
    growth: float
    """Largest change of the radius, as a share of it."""
    spin: float
    """Turn during the whole video, in radians."""

    def placed(self, time: float) -> npt.NDArray[np.float64]:
        """Return the matrix [2, 3] from the surface to the frame at a time from 0 to 1."""
        angles = [2 * np.pi * t * time + p for t, p in zip(self.turns, self.phases, strict=True)]
        x = self.centre[0] + self.reach[0] * np.sin(angles[0])
        y = self.centre[1] + self.reach[1] * np.sin(angles[1])
        scale = self.radius / _RADIUS * (1 + self.growth * np.sin(angles[2]))
        turn = self.spin * time
        matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        shift = np.array([x, y]) - matrix @ np.full(2, _PATCH / 2)
        return np.concatenate([matrix, shift[:, None]], axis=1)


@dataclass(frozen=True, eq=False)
class MovingScene:
    """A video whose frames are drawn when they are asked for, in any order.

    In `Scene.instances` the objects are 1 to `objects`, and the board that hides them is the next
    number.
    """

    seed: int
    frames: int
    height: int
    width: int
    things: tuple[_Thing, ...]
    background: FloatImage
    board: FloatImage
    """The surface of the board, float32 [H, its width, 3]."""

    @property
    def objects(self) -> int:
        """Return the number of objects."""
        return len(self.things)

    def frame(self, index: int) -> Scene:
        """Draw a frame.

        Raises:
            InputError: there is no such frame.
        """
        if not 0 <= index < self.frames:
            raise InputError(f"frame {index}: the video has the frames 0 to {self.frames - 1}")
        canvas, size = self.background.copy(), (self.width, self.height)
        instances = np.zeros((self.height, self.width), np.int32)
        time = index / self.frames
        for number, thing in enumerate(self.things, start=1):
            matrix = thing.placed(time)
            stamp = np.zeros((self.height, self.width), np.uint8)
            # fillPoly uses the even-odd rule, so the second contour is a hole in the first.
            outline = [
                np.rint((contour + _PATCH / 2) @ matrix[:, :2].T + matrix[:, 2]).astype(np.int32)
                for contour in thing.contours
            ]
            cv2.fillPoly(stamp, outline, 1)
            covered = stamp > 0
            surface = cv2.warpAffine(thing.surface, matrix, size, borderMode=cv2.BORDER_REFLECT)
            canvas[covered] = np.asarray(surface)[covered]
            instances[covered] = number
        self._cover(canvas, instances, time)
        rng = generator(derive(self.seed, "frame", index))
        seen = np.asarray(cv2.GaussianBlur(canvas, (0, 0), 0.6))
        noise = rng.standard_normal((self.height, self.width, 3), dtype=np.float32)
        seen = seen + noise * np.float32(0.01)
        image: npt.NDArray[np.uint8] = np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)
        return Scene(image, instances)

    def centre(self, index: int, number: int) -> tuple[float, float] | None:
        """Return the point (x, y) farthest inside the visible part of an object.

        None if nothing of it is visible in the frame.
        """
        visible = (self.frame(index).instances == number).astype(np.uint8)
        return innermost(visible)

    def _cover(self, canvas: FloatImage, instances: npt.NDArray[np.int32], time: float) -> None:
        """Draw the board, which enters at a third of the video and is gone at five sixths."""
        width = self.board.shape[1]
        left = round((self.width + width) * (2 * time - 2 / 3)) - width
        begin, end = max(0, left), min(self.width, left + width)
        if begin < end:
            canvas[:, begin:end] = self.board[:, begin - left : end - left]
            instances[:, begin:end] = self.objects + 1


def make_moving_scene(
    seed: int, frames: int = 300, height: int = 480, width: int = 640, objects: int = 3
) -> MovingScene:
    """Make the video of a seed.

    Args:
        seed: a whole number >= 0; the same arguments give the same bytes on one machine.
        frames: number of frames. The objects take the same way in each number of them.
        height: height in pixels, 64 to 4096.
        width: width in pixels, 64 to 4096.
        objects: number of objects, 1 to 8, side by side. They may overlap for a while.

    Raises:
        InputError: an argument is outside its range.
    """
    if not (64 <= height <= 4096 and 64 <= width <= 4096):
        raise InputError(f"video of {width}x{height} pixels: each side must be 64 to 4096")
    if frames < 1 or not 1 <= objects <= 8:
        raise InputError(
            f"{frames} frames, {objects} objects: at least 1 frame, and 1 to 8 objects"
        )
    rng = generator(seed)
    noise, palette = noise_field(rng, max(height, _PATCH), max(width, _PATCH)), Palette.random(rng)
    background = random_texture(rng, noise, palette, height, width, min(height, width) / 3)
    things = tuple(
        _thing(rng, noise, palette, (index + 0.5) / objects * width, height, width / objects)
        for index in range(objects)
    )
    board = random_texture(rng, noise, palette, height, width // 4, width / 12)
    return MovingScene(seed, frames, height, width, things, background, board)


def innermost(mask: npt.NDArray[np.uint8]) -> tuple[float, float] | None:
    """Return the (x, y) farthest from the edge of a mask [H, W] of 0 and 1; None if it is empty."""
    depth = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    if not depth.max() > 0:
        return None
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(x), float(y)


def _thing(
    rng: np.random.Generator,
    noise: FloatImage,
    palette: Palette,
    x: float,
    height: int,
    room: float,
) -> _Thing:
    """Draw an object that moves around the column `x`."""
    outline = random_outline(rng, _PATCH, _PATCH)
    middle = np.concatenate(outline.contours).mean(axis=0)
    contours = tuple((each - middle) * (_RADIUS / outline.radius) for each in outline.contours)
    radius = min(height, room * 1.2) * float(rng.uniform(0.18, 0.3))
    phases = rng.uniform(0, 2 * np.pi, 3)
    return _Thing(
        contours,
        random_texture(rng, noise, palette, _PATCH, _PATCH, _RADIUS),
        (x, height / 2),
        (room * float(rng.uniform(0.2, 0.45)), height * float(rng.uniform(0.1, 0.25))),
        (float(rng.uniform(0.6, 1.6)), float(rng.uniform(0.6, 2)), float(rng.uniform(0.7, 2))),
        (float(phases[0]), float(phases[1]), float(phases[2])),
        radius,
        float(rng.uniform(0.15, 0.4)),
        float(rng.uniform(-np.pi, np.pi)),
    )
