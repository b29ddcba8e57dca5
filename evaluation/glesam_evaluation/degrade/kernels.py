"""Compute the blur kernels of Real-ESRGAN (arXiv 2107.10833, Sec. 3.2 to 3.4), which LQSeg uses.

Every kernel is float64 [size,size], `size` odd, centred, point-symmetric, and sums to 1.
With q(x, y) = (x, y) S^-1 (x, y)^T the squared distance in standard deviations:

    Gaussian                exp(-q / 2)
    generalized Gaussian    exp(-q^beta / 2)     beta < 1: long tails; > 1: a flatter top
    plateau                 1 / (1 + q^beta)
    sinc                    c J1(c r) / (2 pi r)  an ideal circular low-pass with cutoff c
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from glesam_evaluation.degrade.recipe import Blur

Kernel = npt.NDArray[np.float64]


def blur_kernel(blur: Blur) -> Kernel:
    """Return the kernel that `blur` describes, float64 [size,size], summing to 1."""
    if blur.kind == "sinc":
        return sinc_kernel(blur.size, blur.cutoff)
    if blur.kind == "plateau":
        return plateau_kernel(blur.size, blur.sigma_x, blur.sigma_y, blur.angle, blur.beta)
    # A Gaussian is the generalized one at beta = 1.
    beta = blur.beta if blur.kind == "generalized" else 1.0
    return gaussian_kernel(blur.size, blur.sigma_x, blur.sigma_y, blur.angle, beta)


def gaussian_kernel(
    size: int, sigma_x: float, sigma_y: float, angle: float = 0.0, beta: float = 1.0
) -> Kernel:
    """Return a Gaussian kernel, generalized unless beta is 1; sigmas in pixels, angle radians."""
    return _normalised(np.exp(-0.5 * _squared_distance(size, sigma_x, sigma_y, angle) ** beta))


def plateau_kernel(size: int, sigma_x: float, sigma_y: float, angle: float, beta: float) -> Kernel:
    """Return a plateau-shaped kernel; sigmas in pixels, angle in radians."""
    return _normalised(1.0 / (1.0 + _squared_distance(size, sigma_x, sigma_y, angle) ** beta))


def sinc_kernel(size: int, cutoff: float) -> Kernel:
    """Return a circular low-pass, which rings like an over-sharpened image.

    `cutoff` is in radians per pixel.
    """
    x, y = _grid(size)
    radius = np.hypot(x, y)
    centre = radius == 0
    radius[centre] = 1.0
    kernel = cutoff * special.j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[centre] = cutoff**2 / (4 * math.pi)  # the limit at r = 0
    return _normalised(kernel)


def _squared_distance(size: int, sigma_x: float, sigma_y: float, angle: float) -> Kernel:
    """Return q(x, y), float64 [size,size], of a Gaussian whose first axis points along `angle`."""
    x, y = _grid(size)
    along = (x * math.cos(angle) + y * math.sin(angle)) / sigma_x
    across = (y * math.cos(angle) - x * math.sin(angle)) / sigma_y
    squared: Kernel = along**2 + across**2
    return squared


def _grid(size: int) -> tuple[Kernel, Kernel]:
    offsets = np.arange(size, dtype=np.float64) - size // 2
    x, y = np.meshgrid(offsets, offsets)
    return x, y


def _normalised(kernel: Kernel) -> Kernel:
    total: float = kernel.sum()
    return np.asarray(kernel / total, dtype=np.float64)
