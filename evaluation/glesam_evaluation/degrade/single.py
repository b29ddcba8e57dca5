"""Single degradations of a chosen severity, three of them unseen by any LQSeg recipe.

`haze`, `low_contrast` and `darkness` stand in for the RobustSeg-style unseen test of GleSAM's
Table 3, whose settings are not published: these formulas are ours. `blur`, `noise` and `jpeg` are
LQSeg's steps alone. Severity runs from 0 (for the unseen: unchanged; for the steps: the mild end of
LQSeg's range) to 1 (hard for a person; for the steps: the far end of the range).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from glesam_evaluation.degrade import steps
from glesam_evaluation.degrade.kernels import gaussian_kernel
from glesam_evaluation.degrade.recipe import Noise
from glesam_evaluation.degrade.settings import LQSEG
from glesam_evaluation.degrade.steps import FloatImage, Image
from glesam_evaluation.seeds import generator
from glesam_runtime.errors import InputError

Single = Callable[[FloatImage, float, np.random.Generator], FloatImage]

_GAMMA = 2.2  # of an sRGB display, near enough


def degrade_single(image: Image, kind: str, severity: float = 0.5, seed: int = 0) -> Image:
    """Apply one degradation to uint8 RGB [H,W,3]; same size and dtype out.

    Args:
        image: uint8 RGB [H,W,3], any size from 1x1 on.
        kind: a key of SINGLE.
        severity: from 0 to 1.
        seed: a whole number >= 0; decides the noise, the haze's depth, the gray that contrast
            falls towards.

    Raises:
        InputError: another shape or dtype, an unknown kind, a severity outside [0, 1], a bad seed.
    """
    steps.check_image(image)
    if kind not in SINGLE:
        raise InputError(f"degradation {kind!r}: must be one of {', '.join(SINGLE)}")
    if not 0 <= severity <= 1:
        raise InputError(f"severity {severity!r}: must lie between 0 and 1")
    degraded = SINGLE[kind](steps.to_float(image), float(severity), generator(seed))
    return steps.to_uint8(degraded)


def haze(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Scatter light into the view: v t + A (1 - t), transmission t = exp(-3 severity depth).

    Koschmieder's law. There is no depth map, so one is made up: far at the top, near at the bottom,
    with smooth patches of 1/4 of the image, from 0.3 to 1. The airlight A is a bluish near-white.
    """
    height, width = image.shape[:2]
    patches = cv2.resize(
        rng.random((5, 5), dtype=np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    top_to_bottom = np.linspace(1, 0, height, dtype=np.float32)[:, None]
    depth = 0.3 + 0.7 * (0.6 * top_to_bottom + 0.4 * np.asarray(patches, dtype=np.float32))
    transmission = np.exp(-3 * severity * depth)[..., None]
    airlight = np.float32(rng.uniform(0.8, 0.95)) * np.array([0.96, 0.98, 1], dtype=np.float32)
    return np.asarray(image * transmission + airlight * (1 - transmission), dtype=np.float32)


def low_contrast(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Pull every value towards one gray in [0.4, 0.7]; 1/10 of the range is left at severity 1.

    The loss is real: rounded to 8 bits, some 25 of 255 levels remain.
    """
    gray = np.float32(rng.uniform(0.4, 0.7))
    kept = np.float32(1 - 0.9 * severity)
    return np.asarray(gray + kept * (image - gray), dtype=np.float32)


def darkness(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Under-expose by 5 severity stops of linear light, with the sensor noise that night brings.

    Noise of variance severity^2 (1e-4 v + 1e-6) at linear value v: shot noise and read noise.
    """
    linear = image**_GAMMA * np.float32(2.0 ** (-5 * severity))
    deviation = np.float32(severity) * np.sqrt(1e-4 * linear + 1e-6)
    noisy = linear + deviation * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.maximum(noisy, 0) ** (1 / _GAMMA), dtype=np.float32)


def blur(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Gaussian blur, sigma over LQSeg's [0.2, 3] pixels."""
    sigma = _between(*LQSEG.sigma, severity)
    return steps.blur(image, gaussian_kernel(max(LQSEG.kernel_sizes), sigma, sigma))


def noise(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Coloured Gaussian noise, sigma over LQSeg's [1, 30] of 255."""
    sigma = _between(*LQSEG.gaussian_sigma, severity)
    seed = int(rng.integers(2**32))
    return steps.add_noise(image, Noise(kind="gaussian", strength=sigma, gray=False, seed=seed))


def jpeg(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """JPEG, quality over LQSeg's [30, 95] from its best to its worst."""
    worst, best = LQSEG.jpeg_quality
    return steps.jpeg(image, round(_between(best, worst, severity)))


def _between(mild: float, severe: float, severity: float) -> float:
    return mild + (severe - mild) * severity


UNSEEN: Mapping[str, Single] = {"haze": haze, "low_contrast": low_contrast, "darkness": darkness}
"""Degradations that no LQSeg recipe contains."""

SINGLE: Mapping[str, Single] = {**UNSEEN, "blur": blur, "noise": noise, "jpeg": jpeg}
"""Every degradation that `degrade_single` knows."""
