"""The single steps a degradation is made of, each a pure function of an image and its parameters.

Images are float32 RGB [H,W,3] in [0, 1] on both sides of every step, so that passes do not lose
precision in between; only JPEG rounds to 8 bits, as a camera does.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from glesam_evaluation.degrade.kernels import Kernel
from glesam_evaluation.degrade.recipe import Noise, ResizeMethod
from glesam_runtime import image as image_module
from glesam_runtime.errors import InputError

Image = npt.NDArray[np.uint8]
FloatImage = npt.NDArray[np.float32]

MAX_SIDE = 32_767
"""Pixels. A JPEG holds 65,535, and the first pass enlarges by up to 1.5."""

_INTERPOLATION: dict[ResizeMethod, int] = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def check_image(image: Image) -> None:
    """Raise InputError unless `image` is uint8 RGB [H,W,3], 1 to 32,767 pixels a side."""
    height, width = image_module.check_image(image).shape[:2]
    if max(height, width) > MAX_SIDE:
        raise InputError(f"image of {width} x {height} pixels: at most {MAX_SIDE} a side")


def to_float(image: Image) -> FloatImage:
    """Return uint8 [H,W,3] as float32 in [0, 1]."""
    return image.astype(np.float32) / np.float32(255)


def to_uint8(image: FloatImage) -> Image:
    """Return float32 [H,W,3] as uint8: clipped to [0, 1], rounded to the nearest."""
    rounded: Image = np.rint(np.clip(image, 0, 1) * np.float32(255)).astype(np.uint8)
    return rounded


def blur(image: FloatImage, kernel: Kernel) -> FloatImage:
    """Convolve with `kernel` [K,K]; beyond the border the image is mirrored."""
    # filter2D correlates; every kernel here is point-symmetric, so that is the convolution.
    # Clipped because sinc overshoots, and light cannot be negative.
    filtered = cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT)
    return np.clip(np.asarray(filtered, dtype=np.float32), 0, 1)


def resize(image: FloatImage, height: int, width: int, method: ResizeMethod) -> FloatImage:
    """Resize to [height,width,3]; only "area" averages what it drops, the others alias."""
    if image.shape[:2] == (height, width):
        return image
    resized = cv2.resize(image, (width, height), interpolation=_INTERPOLATION[method])
    return np.clip(np.asarray(resized, dtype=np.float32), 0, 1)


def add_noise(image: FloatImage, noise: Noise) -> FloatImage:
    """Add sensor noise, clipped to [0, 1]; `noise.seed` decides every value.

    Gaussian noise has standard deviation strength/255. Poisson noise is the shot noise of a sensor
    that counts 255 photons at white, times strength: standard deviation strength*sqrt(v/255) at
    value v. Gray noise is equal in the three channels, Poisson's then following the luma.
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
    """Write as a JPEG of `quality` (1 to 100, chroma at half size) and read back."""
    bgr = cv2.cvtColor(to_uint8(image), cv2.COLOR_RGB2BGR)
    written, coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR) if written else None
    if decoded is None:
        raise InputError(
            f"OpenCV could not write a JPEG of {image.shape[1]}x{image.shape[0]} pixels"
        )
    rgb: Image = np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), dtype=np.uint8)
    return to_float(rgb)
