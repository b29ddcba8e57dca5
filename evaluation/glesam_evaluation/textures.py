"""Draw the surfaces of a scene: two colours mixed by a pattern."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

FloatImage = npt.NDArray[np.float32]
"""A colour image float32 [H,W,3] in [0, 1], or a pattern float32 [H,W] in [0, 1]."""


@dataclass(frozen=True)
class Palette:
    """The few hues of a scene, so that some neighbours look alike and have weak edges."""

    hues: tuple[float, ...]
    """Hues in degrees."""
    vividness: float
    """Largest saturation, 0 to 1."""

    @staticmethod
    def random(rng: np.random.Generator) -> Palette:
        """Draw three to six hues and a vividness."""
        hues = rng.uniform(0, 360, int(rng.integers(3, 7)))
        return Palette(tuple(float(hue) for hue in hues), float(rng.uniform(0.25, 0.95)))

    def colour(self, rng: np.random.Generator) -> FloatImage:
        """Draw a colour, float32 RGB [3]."""
        hue = (rng.choice(self.hues) + rng.normal(0, 8)) % 360
        saturation = self.vividness * np.sqrt(rng.random())
        hsv = np.array([[[hue, saturation, rng.uniform(0.15, 0.95)]]], dtype=np.float32)
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
        return np.asarray(rgb, dtype=np.float32).reshape(3)


def noise_field(rng: np.random.Generator, height: int, width: int) -> FloatImage:
    """Sum noise of falling wavelengths (1/f) into a cloudy pattern, float32 [H,W] in [0, 1]."""
    total = np.zeros((height, width), dtype=np.float32)
    cells, amplitude = 3, 1.0
    while cells < max(height, width):
        grid = rng.random((min(cells, height), min(cells, width)), dtype=np.float32)
        total += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, amplitude = cells * 2, amplitude * 0.6
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) / (high - low), dtype=np.float32)


def random_texture(
    rng: np.random.Generator,
    noise: FloatImage,
    palette: Palette,
    height: int,
    width: int,
    scale: float,
) -> FloatImage:
    """Draw a surface [height,width,3]; `scale` in pixels sets the size of its pattern.

    `noise` is a noise_field of at least that size. Each surface uses a random piece of it.
    """
    first = palette.colour(rng)
    # The second colour is often a lighter or darker shade of the first: most things have one hue.
    other = palette.colour(rng) if rng.random() < 0.4 else first * np.float32(rng.uniform(0.4, 1.6))
    piece = _piece(rng, noise, height, width)
    pattern = _pattern(rng, piece, scale)
    mixed = first + pattern[..., None] * (other - first)
    grain = 1 + np.float32(rng.uniform(0, 0.5)) * (piece - np.float32(0.5))
    return np.asarray(mixed * grain[..., None], dtype=np.float32)


def _piece(rng: np.random.Generator, noise: FloatImage, height: int, width: int) -> FloatImage:
    top = int(rng.integers(noise.shape[0] - height + 1))
    left = int(rng.integers(noise.shape[1] - width + 1))
    piece = noise[top : top + height, left : left + width]
    # Mirrored at random, so that two surfaces from the same place still differ.
    return piece[:: int(rng.choice((-1, 1))), :: int(rng.choice((-1, 1)))]


def _pattern(rng: np.random.Generator, piece: FloatImage, scale: float) -> FloatImage:
    """Draw a plain, graded, cloudy, veined, striped, checked or dotted pattern like `piece`."""
    height, width = piece.shape
    angle = rng.uniform(0, np.pi)
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(width / 2)
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(height / 2)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    # Noise bends the axes a little, because natural patterns are not perfectly straight.
    bend = np.float32(rng.uniform(0, 0.8) * scale) * (piece - np.float32(0.5))
    along, across = x * cos + y * sin + bend, y * cos - x * sin + bend
    # A period of at least 5 pixels avoids moiré.
    wave = np.float32(2 * np.pi / max(5.0, scale * rng.uniform(0.15, 0.6)))
    sharpness = np.float32(rng.uniform(1, 6))

    kind = rng.choice(7, p=(0.15, 0.15, 0.2, 0.1, 0.2, 0.1, 0.1))
    if kind == 0:
        value = np.zeros_like(piece)
    elif kind == 1:
        value = along / np.float32(2 * max(scale, 1.0))
    elif kind == 2:
        value = sharpness * (piece - np.float32(0.5))
    elif kind == 3:
        value = np.float32(0.5) - np.abs(np.sin(np.float32(2 * np.pi) * sharpness * piece))
    elif kind == 4:
        value = sharpness * np.sin(wave * along)
    elif kind == 5:
        value = sharpness * np.sin(wave * along) * np.sin(wave * across)
    else:
        value = sharpness * (np.cos(wave * along) + np.cos(wave * across) - 1)
    return np.asarray(np.clip(value + np.float32(0.5), 0, 1), dtype=np.float32)
