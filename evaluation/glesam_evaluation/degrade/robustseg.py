"""Apply one of the fifteen degradations of RobustSeg, the unseen test of GleSAM's Table 3.

The kinds and their parameters are those that RobustSAM publishes (repository robustsam/RobustSAM,
data/augment.py), where they are calls of albumentations 1.3 and imgaug 0.4. Neither package is used
here: imgaug does not import with NumPy 2, and later versions of albumentations have other
parameters. The functions are written from the published parameters and the formulas of both
packages.

Strength 1 is the published degradation and strength 0 the clear image. Between them, the deviation
of each parameter from doing nothing is multiplied by the strength.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from glesam_evaluation.degrade.apply import FloatImage
from glesam_evaluation.degrade.apply import jpeg as jpeg_step
from glesam_evaluation.degrade.warp import elastic_transform
from glesam_evaluation.degrade.weather import fog, rain, snow

Apply = Callable[[FloatImage, float, np.random.Generator], FloatImage]
"""A degradation: image float32 [H,W,3] in [0, 1], strength in [0, 1], random numbers."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def gauss_noise(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Add coloured Gaussian noise of variance 250 to 260 of 255 squared."""
    sigma = math.sqrt(rng.uniform(250, 260)) / 255
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + np.float32(strength * sigma) * noise, dtype=np.float32)


def iso_noise(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Add the noise of a sensor at high ISO: hue turns, lightness grows by a Poisson number.

    The hue gets a deviation of 360 x colour shift (0.4 to 0.5) x intensity (0.7 to 0.8) degrees.
    The lightness L gets (1 - L) n / 255, where n is a Poisson number whose mean is 255 x intensity
    x the deviation of all lightness.
    """
    shift, intensity = rng.uniform(0.4, 0.5), strength * rng.uniform(0.7, 0.8)
    hue, light, saturation = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HLS))
    hue = (hue + 360 * shift * intensity * rng.standard_normal(hue.shape, dtype=np.float32)) % 360
    grains = rng.poisson(255 * intensity * float(light.std()), light.shape).astype(np.float32)
    light = light + grains / 255 * (1 - light)
    merged = cv2.merge([hue, np.clip(light, 0, 1), saturation])
    return np.asarray(cv2.cvtColor(merged, cv2.COLOR_HLS2RGB), dtype=np.float32)


def impulse_noise(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Multiply the whole image by one factor from 1.4 to 1.5.

    This is what the published parameters do, whatever the name says: `MultiplicativeNoise` draws
    one factor per image unless it is told otherwise.
    """
    factor = 1 + strength * (rng.uniform(1.4, 1.5) - 1)
    return np.asarray(image * np.float32(factor), dtype=np.float32)


def resampling_blur(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Shrink to a quarter of the size and enlarge again, both bilinear."""
    height, width = image.shape[:2]
    factor = 1 + 3 * strength
    small = max(1, int(width / factor)), max(1, int(height / factor))
    low = cv2.resize(image, small, interpolation=cv2.INTER_LINEAR)
    return np.asarray(
        cv2.resize(low, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32
    )


def motion_blur(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Blur along a line between two random points of a square of 3, 5, ... 35 pixels.

    The published kernel lies anywhere in its square, which moves the image by up to 17 pixels
    against its masks. Here the line is centred, so that the image stays in place.
    """
    size = 3 + 2 * int(rng.integers(17))
    first, last = rng.integers(0, size, 2), rng.integers(0, size, 2)
    if (first == last).all():
        last[0] = (first[0] + 1 + rng.integers(size - 1)) % size
    half = strength * (last - first) / 2
    samples = 1 + 4 * int(np.ceil(np.abs(half).max()))
    kernel = np.zeros((37, 37), dtype=np.float32)  # half a line is at most 17 pixels
    for share in np.linspace(-1, 1, samples):
        _splat(kernel, *(18 + share * half))
    return np.asarray(
        cv2.filter2D(image, cv2.CV_32F, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101),
        dtype=np.float32,
    )


def zoom_blur(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Average the image with enlargements of itself, by 1, 1 + step and so on up to 1.33 at most.

    The largest factor is drawn from 1 to 1.33, the step from 0.05 to 0.07.
    """
    largest, step = rng.uniform(1, 1.33), rng.uniform(0.05, 0.07)
    factors = 1 + strength * (np.arange(1, largest, step) - 1)
    height, width = image.shape[:2]
    total = image.copy()
    for factor in factors:
        # Enlarge about the centre of the image.
        matrix = np.array(
            [
                [factor, 0, (1 - factor) * (width - 1) / 2],
                [0, factor, (1 - factor) * (height - 1) / 2],
            ]
        )
        total += cv2.warpAffine(
            image,
            matrix,
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    return np.asarray(total / (len(factors) + 1), dtype=np.float32)


def color_jitter(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Change brightness, contrast, saturation and hue in a random order.

    The factors are drawn from 0.3 to 1.7, 0.7 to 1.3 and 0.3 to 1.7, the hue from -0.7 to 0.7
    turns.
    """
    bright, contrasted, saturated = (
        np.float32(1 + strength * rng.uniform(-width, width)) for width in (0.7, 0.3, 0.7)
    )
    turn = strength * rng.uniform(-0.7, 0.7)
    for step in rng.permutation(4):
        if step == 0:
            image = np.asarray(image * bright, dtype=np.float32)
        elif step == 1:
            mean = np.float32((image @ _LUMA).mean())
            image = np.asarray(mean + contrasted * (image - mean), dtype=np.float32)
        elif step == 2:
            gray = (image @ _LUMA)[..., None]
            image = np.asarray(gray + saturated * (image - gray), dtype=np.float32)
        else:
            image = _turn_hue(image, turn)
        image = np.clip(image, 0, 1).astype(np.float32)
    return np.asarray(image, dtype=np.float32)


def compression(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Compress as JPEG of quality 5 to 10."""
    quality = int(rng.integers(5, 10, endpoint=True))
    return jpeg_step(image, round(100 - strength * (100 - quality)))


def frosted_glass_blur(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Give every pixel the value of a random one at most 3 pixels away in each direction."""
    height, width = image.shape[:2]
    moved = np.rint(strength * rng.integers(-3, 3, (2, height, width), endpoint=True)).astype(int)
    rows = np.clip(np.arange(height)[:, None] + moved[0], 0, height - 1)
    columns = np.clip(np.arange(width)[None, :] + moved[1], 0, width - 1)
    return np.asarray(image[rows, columns], dtype=np.float32)


def brightness(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Darken by a factor from 0.6 to 0.8."""
    factor = 1 - strength * (1 - rng.uniform(0.6, 0.8))
    return np.asarray(image * np.float32(factor), dtype=np.float32)


def contrast(image: FloatImage, strength: float, rng: np.random.Generator) -> FloatImage:
    """Move every value away from 128 by a factor from 1.6 to 1.7."""
    factor = 1 + strength * (rng.uniform(1.6, 1.7) - 1)
    middle = np.float32(128 / 255)
    return np.asarray(middle + np.float32(factor) * (image - middle), dtype=np.float32)


def _splat(kernel: FloatImage, x: float, y: float) -> None:
    """Add 1 to a kernel at a point between pixels, shared by the four around it."""
    left, top = int(np.floor(x)), int(np.floor(y))
    right, bottom = x - left, y - top
    kernel[top, left] += (1 - right) * (1 - bottom)
    kernel[top, left + 1] += right * (1 - bottom)
    kernel[top + 1, left] += (1 - right) * bottom
    kernel[top + 1, left + 1] += right * bottom


def _turn_hue(image: FloatImage, turn: float) -> FloatImage:
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    turned = cv2.merge([(hue + np.float32(360 * turn)) % 360, saturation, value])
    return np.asarray(cv2.cvtColor(turned, cv2.COLOR_HSV2RGB), dtype=np.float32)


ROBUSTSEG: Mapping[str, Apply] = {
    "snow": snow,
    "fog": fog,
    "rain": rain,
    "gauss_noise": gauss_noise,
    "iso_noise": iso_noise,
    "impulse_noise": impulse_noise,
    "resampling_blur": resampling_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "color_jitter": color_jitter,
    "compression": compression,
    "elastic_transform": elastic_transform,
    "frosted_glass_blur": frosted_glass_blur,
    "brightness": brightness,
    "contrast": contrast,
}
"""The degradations by name, in the order of the published code."""
