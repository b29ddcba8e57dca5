"""Draw the shapes of a scene as closed contours: ellipses, polygons, stars, blobs and rings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Contour = npt.NDArray[np.float64]
"""[P,2], (x, y) in pixels."""

_SMOOTH = 72  # vertices of a curved contour: accurate to one pixel up to a radius of about 1000


@dataclass(frozen=True, eq=False)
class Outline:
    """A shape of one contour, or of two if the second is a hole; `radius` is in pixels."""

    contours: tuple[Contour, ...]
    radius: float


def random_outline(rng: np.random.Generator, height: int, width: int) -> Outline:
    """Draw a random shape whose centre lies in an image of `height` x `width` pixels.

    Radii follow the power law r^-2 of the dead-leaves model, from 1/20 to 2/5 of the shorter side:
    many are small, few are large. The smallest radius is 3 pixels, so that no shape vanishes.
    """
    side = min(height, width)
    smallest, largest = max(3.0, side / 20), max(4.0, side / 2.5)
    # The inverse of the distribution function of r^-2.
    radius = 1 / (1 / largest + rng.random() * (1 / smallest - 1 / largest))
    centre = rng.random(2) * (width - 1, height - 1)

    kind = rng.choice(5, p=(0.25, 0.25, 0.1, 0.3, 0.1))
    unit = (_ellipse, _polygon, _star, _blob, _ring)[kind](rng)
    turn, aspect = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    to_image = radius * rotation @ np.diag([1, aspect])
    return Outline(tuple(contour @ to_image.T + centre for contour in unit), radius)


# Each of these functions returns contours around the origin, with a radius of about 1.


def _ellipse(rng: np.random.Generator) -> tuple[Contour, ...]:
    return (_polar(_angles(_SMOOTH), np.ones(_SMOOTH)),)


def _polygon(rng: np.random.Generator) -> tuple[Contour, ...]:
    corners = int(rng.integers(3, 8))
    # A jitter below half a step keeps the corners in order, so that no edges cross.
    jitter = rng.uniform(-0.35, 0.35, corners) * 2 * np.pi / corners
    return (_polar(_angles(corners) + jitter, rng.uniform(0.75, 1.1, corners)),)


def _star(rng: np.random.Generator) -> tuple[Contour, ...]:
    points = int(rng.integers(4, 9))
    radii = np.tile((1.1, rng.uniform(0.4, 0.75)), points)
    return (_polar(_angles(2 * points), radii),)


def _blob(rng: np.random.Generator) -> tuple[Contour, ...]:
    angles = _angles(_SMOOTH)
    radii = np.ones(_SMOOTH)
    for harmonic in range(2, 7):
        amplitude = rng.normal(0, 0.5) / harmonic**1.3
        radii += amplitude * np.cos(harmonic * angles + rng.uniform(0, 2 * np.pi))
    return (_polar(angles, np.clip(radii, 0.3, 1.7)),)


def _ring(rng: np.random.Generator) -> tuple[Contour, ...]:
    (outer,) = _ellipse(rng)
    return outer, outer * rng.uniform(0.4, 0.65)


def _angles(count: int) -> npt.NDArray[np.float64]:
    return np.linspace(0, 2 * np.pi, count, endpoint=False)


def _polar(angles: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> Contour:
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
