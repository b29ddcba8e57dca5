"""Apply a recipe of the paper to an image: the single steps, and the two passes made of them.

Every step is a pure function. It takes and returns float32 RGB [H,W,3] in [0, 1], so that no
precision is lost between steps. Only JPEG rounds to 8 bits, as a camera does.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from glesam_evaluation.degrade.kernels import Kernel, blur_kernel
from glesam_evaluation.degrade.recipe import (
    Noise,
    Pass,
    Recipe,
    ResizeMethod,
)
from glesam_runtime import image as any_image
from glesam_runtime.errors import InputError

Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]

MAX_SIDE = 32_767
"""Largest side, pixels. A JPEG holds 65,535, and the first pass enlarges by up to 1.5."""

INTERPOLATION: dict[ResizeMethod, int] = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def check_image(image: Image) -> None:
    """Raise InputError unless `image` is uint8 RGB [H,W,3], 1 to 32,767 pixels a side."""
    height, width = any_image.check_image(image).shape[:2]
    if max(height, width) > MAX_SIDE:
        raise InputError(
            f"image of {width} x {height} pixels: each side must have at most {MAX_SIDE}"
        )


def to_float(image: Image) -> FloatImage:
    """Convert uint8 [H,W,3] to float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(255)


def to_uint8(image: FloatImage) -> Image:
    """Convert float32 [H,W,3] to uint8: clip to [0, 1], round to the nearest."""
    rounded: Image = np.rint(np.clip(image, 0, 1) * np.float32(255)).astype(np.uint8)
    return rounded


def blur(image: FloatImage, kernel: Kernel) -> FloatImage:
    """Convolve with `kernel` [K,K]; the image is mirrored at its border."""
    # filter2D computes a correlation, which equals the convolution for point-symmetric kernels.
    # Clipped because sinc overshoots, and light cannot be negative.
    filtered = cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT)
    return np.clip(np.asarray(filtered, dtype=np.float32), 0, 1)


def resize(image: FloatImage, height: int, width: int, method: ResizeMethod) -> FloatImage:
    """Resize to [height,width,3]. Only "area" averages the pixels it drops; the others alias."""
    if image.shape[:2] == (height, width):
        return image
    resized = cv2.resize(image, (width, height), interpolation=INTERPOLATION[method])
    return np.clip(np.asarray(resized, dtype=np.float32), 0, 1)


def add_noise(image: FloatImage, noise: Noise) -> FloatImage:
    """Add sensor noise and clip to [0, 1]; `noise.seed` determines every value.

    Gaussian noise has the standard deviation strength/255. Poisson noise is the shot noise of a
    sensor that counts 255 photons at white, times strength: its standard deviation is
    strength*sqrt(v/255) at value v. Gray noise is the same in all three channels; gray Poisson
    noise depends on the luma.
    """
    rng = np.random.default_rng(noise.seed)
    height, width = image.shape[:2]
    if noise.kind == "gaussian":
        values = rng.standard_normal((height, width, 1 if noise.gray else 3), dtype=np.float32)
        values *= np.float32(noise.strength / 255)
    else:
        clear = (image @ _LUMA)[..., None] if noise.gray else image
        photons = np.maximum(clear, 0) * np.float32(255)
        values = (rng.poisson(photons) - photons).astype(np.float32)
        values *= np.float32(noise.strength / 255)
    noisy: FloatImage = np.clip(image + values, 0, 1)
    return noisy


def jpeg(image: FloatImage, quality: int) -> FloatImage:
    """Compress as a JPEG of `quality` (1 to 100, chroma at half size) and decompress."""
    bgr = cv2.cvtColor(to_uint8(image), cv2.COLOR_RGB2BGR)
    written, coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR) if written else None
    if decoded is None:
        raise InputError(
            f"OpenCV could not write a JPEG of {image.shape[1]}x{image.shape[0]} pixels"
        )
    rgb: Image = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return to_float(rgb)


def apply_recipe(image: Image, recipe: Recipe) -> Image:
    """Apply a recipe to an image, uint8 RGB [H,W,3]; the size and dtype stay the same.

    The JPEG of the second pass comes after the final down-sampling, as in a small file that someone
    sends. Down-sampling after it would smooth the noise, and LQ-3 would be cleaner than LQ-1.

    Raises:
        InputError: the image is not uint8 RGB [H,W,3].
    """
    check_image(image)
    height, width = image.shape[:2]
    small_height, small_width = _scaled(height, 1 / recipe.rate), _scaled(width, 1 / recipe.rate)

    pixels = _blur_resize_noise(to_float(image), recipe.first, height, width)
    pixels = jpeg(pixels, recipe.first.jpeg.quality)
    pixels = _blur_resize_noise(pixels, recipe.second, small_height, small_width)
    pixels = resize(pixels, small_height, small_width, recipe.final)
    pixels = jpeg(pixels, recipe.second.jpeg.quality)
    return to_uint8(resize(pixels, height, width, "bicubic"))


def _blur_resize_noise(pixels: FloatImage, one: Pass, height: int, width: int) -> FloatImage:
    """Run a pass without its JPEG; return `one.resize.scale` times [height,width] pixels."""
    if one.blur is not None:
        pixels = blur(pixels, blur_kernel(one.blur))
    scale = one.resize.scale
    pixels = resize(pixels, _scaled(height, scale), _scaled(width, scale), one.resize.method)
    return add_noise(pixels, one.noise)


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))
