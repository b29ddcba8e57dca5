"""Draw the weather of RobustSeg over an image: snow, fog and rain.

Strength is the opacity of the weather: the result is the clear image plus strength times the
difference to the image in full weather.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from glesam_evaluation.degrade.apply import FloatImage

Layer = npt.NDArray[np.float32]
"""One value in [0, 1] per pixel, float32 [H,W]."""

_DROP = 240 / 255
"""Gray of a drop of rain."""


def snow(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Draw snowflakes: density 0.35, size 0.6 to 0.8, speed 0.01 to 0.015, one to three times.

    The published code also calls `RandomSnow` with a coefficient of 1.0, which changes nothing.
    """
    flake_size, speed = rng.uniform(0.6, 0.8), rng.uniform(0.01, 0.015)
    evenness = rng.uniform(0.4, 0.8)
    flakes = _flakes(rng, image, 0.35, rng.uniform(0.3, 0.9), flake_size)
    sigma = np.clip(max(image.shape) * rng.uniform(0.0001, 0.001), 0.5, 3.75)
    flakes = np.asarray(cv2.GaussianBlur(flakes, (0, 0), float(sigma)), dtype=np.float32)
    flakes = _fall(flakes, speed, 0.0)
    # Contrast makes the flakes differ in size; the factor makes them visible again.
    flakes = np.clip(flakes, 0, 1) ** (3 - 2 * evenness) * np.float32(6 - 5 * evenness)
    glow, bright = (0.1 + 20 * speed) * flakes, (1 + 20 * speed) * flakes
    snowy = image
    for _ in range(_layers(rng)):
        snowy = np.clip(np.maximum(snowy + glow[..., None], bright[..., None]), 0, 1)
    return _covered(image, snowy, strength)


def rain(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Draw rain: drops of size 0.4 to 0.5 that fall at 0.05 to 0.1, one to three times.

    The density is 0.03 to 0.14, and the drops fall at up to 15 degrees from the vertical.
    """
    density, drop_size = rng.uniform(0.03, 0.14), rng.uniform(0.4, 0.5)
    drops = _flakes(rng, image, density, rng.uniform(0.8, 1), drop_size)
    drops = _fall(drops, rng.uniform(0.05, 0.1), rng.uniform(-15, 15))
    opacity = np.clip(1.3 * drops, 0, 1)[..., None]
    rainy = image
    for _ in range(_layers(rng)):
        rainy = (1 - opacity) * rainy + opacity * np.float32(_DROP)
    return _covered(image, rainy, strength)


def fog(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Draw a cloud of bright gray over the image, then faint white disks, and blur them.

    The cloud is imgaug's `Fog`, the disks are albumentations' `RandomFog` (coefficient 0.1 to 0.2,
    opacity 0.08 times that). The published code has the same cloud in every image, because it fixes
    the seed of `Fog`; here `rng` draws it.
    """
    height, width = image.shape[:2]
    mean = rng.uniform(220, 255)
    coarse = cv2.resize(rng.normal(0, 2, (8, 8)), (width, height), interpolation=cv2.INTER_CUBIC)
    fine = _frequency_noise(rng, height, width, rng.uniform(-2, -1.5), max(height, width))
    gray = np.clip(mean + coarse + mean * (2 * fine - 1) / 5, 0, 255) / 255
    local = _frequency_noise(rng, height, width, rng.uniform(-4, -2), int(rng.integers(2, 9)))
    density = rng.uniform(0.4, 0.9)
    opacity = np.clip((rng.uniform(0.7, 0.9) + 0.3 * local) ** 0.9 * density, 0, 1)
    foggy = (1 - opacity[..., None]) * image + (opacity * gray)[..., None]
    return _covered(image, _disks(foggy.astype(np.float32), rng), strength)


def _layers(rng: np.random.Generator) -> int:
    """Draw how often a layer is laid over the image.

    imgaug lays one to three layers, but they are copies with one state of the random generator, so
    all of them show the same flakes.
    """
    return int(rng.integers(1, 3, endpoint=True))


def _covered(image: FloatImage, full: FloatImage, strength: float) -> FloatImage:
    return np.asarray(image + np.float32(strength) * (full - image), dtype=np.float32)


def _flakes(
    rng: np.random.Generator, image: FloatImage, density: float, uniformity: float, size: float
) -> Layer:
    """Return bright dots, fewer of them in some parts: float32 [H,W].

    Args:
        rng: random numbers.
        image: the image; only its shape counts.
        density: share of the pixels of the small layer that are dots.
        uniformity: 1 is the same number of dots everywhere.
        size: the layer is drawn at 1 - size of the image's size and enlarged.
    """
    height, width = image.shape[:2]
    small = max(1, int(height * (1 - size))), max(1, int(width * (1 - size)))
    bright = 0.5 + np.abs(rng.beta(0.5, 0.5, small) - 0.5)
    dots = np.where(rng.random(small) < density, bright, 0)
    gate = rng.beta(1, max(1 - uniformity, 1e-3), (8, 8))
    gate = np.clip(cv2.resize(gate, small[::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
    layer = cv2.resize(dots * gate, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.asarray(layer, dtype=np.float32), 0, 1)


def _fall(layer: Layer, speed: float, angle: float) -> Layer:
    """Blur along the way of the fall: `speed` times the longer side, `angle` degrees from down."""
    length = int(speed * max(layer.shape))
    if length <= 1:
        return layer
    length = max(length, 3)
    kernel = np.zeros((length, length), dtype=np.float32)
    kernel[:, length // 2] = np.linspace(1, 0, length)
    middle = (length - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), angle, 1)
    kernel = np.asarray(cv2.warpAffine(kernel, turn, (length, length)), dtype=np.float32)
    blurred = cv2.filter2D(
        layer, cv2.CV_32F, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101
    )
    return np.asarray(blurred, dtype=np.float32)


def _frequency_noise(
    rng: np.random.Generator, height: int, width: int, exponent: float, longest: int
) -> npt.NDArray[np.float64]:
    """Return noise of the spectrum f^exponent in [0, 1], drawn at up to `longest` pixels a side."""
    shrink = min(1.0, longest / max(height, width))
    rows, columns = max(2, round(height * shrink)), max(2, round(width * shrink))
    frequency = np.hypot(np.fft.fftfreq(rows)[:, None] * rows, np.fft.fftfreq(columns) * columns)
    frequency[0, 0] = 1
    phases = np.exp(2j * math.pi * rng.random((rows, columns)))
    values = np.fft.ifft2(frequency**exponent * rng.random((rows, columns)) * phases).real
    low, high = values.min(), values.max()
    values = (values - low) / max(high - low, 1e-12)
    large = cv2.resize(values, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.asarray(large, dtype=np.float64), 0, 1)


def _disks(image: FloatImage, rng: np.random.Generator) -> FloatImage:
    """Lay faint white disks over the image, in growing rectangles around its centre."""
    height, width = image.shape[:2]
    coefficient = rng.uniform(0.1, 0.2)
    side = max(1, int(width // 3 * coefficient))
    drawn = max(side, 10)
    lit = image.copy()
    left, top, number = width // 2 - 2 * side, height // 2 - side, 1
    step_x, step_y = (max(1, 3 * side * size // (height + width)) for size in (width, height))
    while left > -side or top > -side:
        for _ in range(side // 10 * number):
            x = int(rng.uniform(left, max(left, width - left - side) + 1)) + drawn // 2
            y = int(rng.uniform(top, max(top, height - top - side) + 1)) + drawn // 2
            disk = cv2.circle(np.zeros((height, width), np.float32), (x, y), drawn // 2, 1.0, -1)
            lit += np.float32(0.08 * coefficient) * disk[..., None] * (1 - lit)
        left, top, number = left - step_x, top - step_y, number + 1
    blur = max(1, drawn // 10)
    return np.asarray(cv2.blur(lit, (blur, blur)), dtype=np.float32)
