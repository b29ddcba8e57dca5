"""Apply a recipe of GleSAM's released code to an image.

The steps differ from those of the paper's recipe where pixels are concerned: sizes are rounded
down, images are mirrored at their border without the border pixel itself, a blur or a resize is not
clipped, Poisson noise depends on how many values an image has, and the image gets its original size
back before or after the last JPEG.
"""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image as Pillow

from glesam_evaluation.degrade.apply import (
    INTERPOLATION,
    FloatImage,
    Image,
    add_noise,
    check_image,
    jpeg,
    to_float,
    to_uint8,
)
from glesam_evaluation.degrade.kernels import blur_kernel
from glesam_evaluation.degrade.recipe import Blur, Noise, Pass, ResizeMethod
from glesam_evaluation.degrade.released import ReleasedRecipe

SIDE = 512
"""Side of the square images that the released code trains and tests with, pixels."""

_SHARPEN_SIZE, _SHARPEN_WEIGHT, _SHARPEN_FROM = 51, 0.5, 10
"""Kernel size in pixels, share of the detail that is added, and least difference of 255."""


def apply_released(image: Image, recipe: ReleasedRecipe, side: int | None = None) -> Image:
    """Apply a released recipe to an image, uint8 RGB [H,W,3].

    Args:
        image: uint8 RGB [H,W,3].
        recipe: what was drawn.
        side: side of the square result in pixels, SIDE in the released code; None keeps the size.
            The training recipe resizes the image first, so that its blurs are in pixels of the
            square. The test recipe resizes it at the end.

    Raises:
        InputError: the image is not uint8 RGB [H,W,3].
    """
    check_image(image)
    if side is not None and recipe.squares_first:
        image = _square(image, side)
    height, width = image.shape[:2]
    pixels = to_float(image)
    if recipe.sharpens:
        pixels = sharpen(pixels)

    pixels = _blur_resize_noise(pixels, recipe.first, height, width)
    pixels = jpeg(pixels, recipe.first.jpeg.quality)
    pixels = _blur_resize_noise(pixels, recipe.second, height / recipe.rate, width / recipe.rate)
    if not recipe.jpeg_last:
        pixels = jpeg(pixels, recipe.second.jpeg.quality)
    if side is not None:
        height = width = side
    pixels = _resize(pixels, height, width, recipe.back)
    if recipe.last_sinc is not None:
        pixels = _blur(pixels, recipe.last_sinc)
    if recipe.jpeg_last:
        pixels = jpeg(pixels, recipe.second.jpeg.quality)
    return to_uint8(pixels)


def sharpen(image: FloatImage) -> FloatImage:
    """Sharpen by unsharp masking: add half of the difference to a blur of sigma 8 pixels.

    Only places that differ from the blur by more than 10 of 255 are sharpened, with soft borders.
    """
    size = (_SHARPEN_SIZE, _SHARPEN_SIZE)
    detail = image - cv2.GaussianBlur(image, size, 0)
    is_sharpened = (np.abs(detail) * 255 > _SHARPEN_FROM).astype(np.float32)
    share = cv2.GaussianBlur(is_sharpened, size, 0)
    sharp = np.clip(image + np.float32(_SHARPEN_WEIGHT) * detail, 0, 1)
    return np.asarray(share * sharp + (1 - share) * image, dtype=np.float32)


def add_released_noise(image: FloatImage, noise: Noise) -> FloatImage:
    """Add noise and clip to [0, 1]. Gaussian noise is that of `apply.add_noise`.

    Poisson noise counts V photons at white, where V is the number of different values in the image
    rounded up to a power of two (256 for photographs). Its standard deviation is
    strength * sqrt(v / V) at value v. An image of few values therefore gets more noise.
    """
    if noise.kind == "gaussian":
        return add_noise(image, noise)
    clear = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None] if noise.gray else image
    eight_bit = to_uint8(np.asarray(clear, dtype=np.float32))
    counted = 2.0 ** np.ceil(np.log2(len(np.unique(eight_bit))))
    expected = eight_bit / 255
    seen = np.random.default_rng(noise.seed).poisson(expected * counted) / counted
    values = (noise.strength * (seen - expected)).astype(np.float32)
    noisy: FloatImage = np.clip(image + values, 0, 1)
    return noisy


def _blur_resize_noise(pixels: FloatImage, one: Pass, height: float, width: float) -> FloatImage:
    if one.blur is not None:
        pixels = _blur(pixels, one.blur)
    scale = one.resize.scale
    small = max(1, int(height * scale)), max(1, int(width * scale))
    return add_released_noise(_resize(pixels, *small, one.resize.method), one.noise)


def _blur(pixels: FloatImage, blur: Blur) -> FloatImage:
    filtered = cv2.filter2D(
        pixels, cv2.CV_32F, blur_kernel(blur), borderType=cv2.BORDER_REFLECT_101
    )
    return np.asarray(filtered, dtype=np.float32)


def _resize(pixels: FloatImage, height: int, width: int, method: ResizeMethod) -> FloatImage:
    if pixels.shape[:2] == (height, width):
        return pixels
    resized = cv2.resize(pixels, (width, height), interpolation=INTERPOLATION[method])
    return np.asarray(resized, dtype=np.float32)


def _square(image: Image, side: int) -> Image:
    resized = Pillow.fromarray(image).resize((side, side), Pillow.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)
