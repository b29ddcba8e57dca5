"""Apply a single degradation of a chosen severity.

The fifteen of `robustseg.ROBUSTSEG` are the unseen test of GleSAM's Table 3. `haze`, `low_contrast`
and `darkness` are further ones that no LQSeg recipe contains, with formulas of our own. `blur`,
`noise` and `jpeg` are single steps of LQSeg. Severity 0 leaves an image unchanged, but for the
steps, where it is the mild end of LQSeg's range. Severity 1 is the published strength of RobustSeg,
hard to recognise for a person (haze, low contrast, darkness), or the far end of a step's range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from glesam_evaluation.degrade.apply import (
    FloatImage,
    Image,
    add_noise,
    check_image,
    to_float,
    to_uint8,
)
from glesam_evaluation.degrade.apply import blur as blur_step
from glesam_evaluation.degrade.apply import jpeg as jpeg_step
from glesam_evaluation.degrade.kernels import gaussian_kernel
from glesam_evaluation.degrade.recipe import LQSEG, Noise
from glesam_evaluation.degrade.robustseg import ROBUSTSEG, Apply
from glesam_evaluation.degrade.warp import Masks, elastic_field, warp_masks
from glesam_evaluation.seeds import generator
from glesam_runtime.errors import InputError


@dataclass(frozen=True)
class Single:
    """A single degradation: the arguments of `degrade_single`, checked.

    Raises:
        InputError: the kind is unknown, or the strength is outside [0, 1].
    """

    kind: str
    strength: float
    seed: int

    def __post_init__(self) -> None:
        if self.kind not in SINGLE:
            raise InputError(f"degradation {self.kind!r}: must be one of {', '.join(SINGLE)}")
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength {self.strength!r}: must lie between 0 and 1")


_GAMMA = 2.2  # approximately that of an sRGB display


def degrade_single(image: Image, kind: str, severity: float = 0.5, seed: int = 0) -> Image:
    """Apply one degradation to an image, uint8 RGB [H,W,3]; size and dtype stay the same.

    Args:
        image: uint8 RGB [H,W,3], any size from 1x1 on.
        kind: a key of SINGLE.
        severity: from 0 to 1.
        seed: a whole number >= 0, for everything that is drawn.

    Raises:
        InputError: the image has another shape or dtype, the kind is unknown, the severity is
            outside [0, 1], or the seed is not a whole number >= 0.
    """
    check_image(image)
    Single(kind, severity, seed)
    if severity == 0 and kind in (*UNSEEN, *VISIBILITY):
        return image.copy()
    degraded = SINGLE[kind](to_float(image), float(severity), generator(seed))
    return to_uint8(degraded)


def degrade_with_masks(
    image: Image, masks: Masks, kind: str, severity: float = 0.5, seed: int = 0
) -> tuple[Image, Masks]:
    """Apply one degradation to an image and, if it is one of WARPS, to its masks.

    Args:
        image: uint8 RGB [H,W,3].
        masks: bool [K,H,W]; a warp may empty a small one at the border.
        kind: a key of SINGLE.
        severity: from 0 to 1.
        seed: a whole number >= 0. The image is that of `degrade_single`.

    Raises:
        InputError: as `degrade_single`, or the masks have another size than the image.
    """
    degraded = degrade_single(image, kind, severity, seed)
    if masks.ndim != 3 or masks.shape[1:] != image.shape[:2]:
        raise InputError(
            f"masks of shape {list(masks.shape)}: must be [K,{image.shape[0]},{image.shape[1]}], "
            "as the image"
        )
    if kind not in WARPS or severity == 0:
        return degraded, masks
    field = elastic_field(image.shape[0], image.shape[1], float(severity), generator(seed))
    return degraded, warp_masks(masks, field)


def haze(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Scatter light into the view: v t + A (1 - t), transmission t = exp(-3 severity depth).

    This is Koschmieder's law. Because there is no depth map, one is drawn: far at the top, near at
    the bottom, with smooth patches of 1/4 of the image, from 0.3 to 1. The airlight A is a bluish
    white.
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
    """Move every value towards one gray in [0.4, 0.7]; severity 1 keeps 1/10 of the range.

    Detail is lost for good: rounded to 8 bits, about 25 of 255 levels remain.
    """
    gray = np.float32(rng.uniform(0.4, 0.7))
    kept = np.float32(1 - 0.9 * severity)
    return np.asarray(gray + kept * (image - gray), dtype=np.float32)


def darkness(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Under-expose by 5 * severity stops of linear light, and add the sensor noise of a dark scene.

    The noise has the variance severity^2 (1e-4 v + 1e-6) at linear value v: shot and read noise.
    """
    linear = image**_GAMMA * np.float32(2.0 ** (-5 * severity))
    deviation = np.float32(severity) * np.sqrt(1e-4 * linear + 1e-6)
    noisy = linear + deviation * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.maximum(noisy, 0) ** (1 / _GAMMA), dtype=np.float32)


def blur(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Apply Gaussian blur; severity 0 to 1 is sigma 0.2 to 3 pixels, the range of LQSeg."""
    sigma = _between(*LQSEG.sigma, severity)
    return blur_step(image, gaussian_kernel(max(LQSEG.kernel_sizes), sigma, sigma))


def noise(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Add coloured Gaussian noise; severity 0 to 1 is sigma 1 to 30 of 255, the range of LQSeg."""
    sigma = _between(*LQSEG.gaussian_sigma, severity)
    seed = int(rng.integers(2**32))
    return add_noise(image, Noise(kind="gaussian", strength=sigma, gray=False, seed=seed))


def jpeg(image: FloatImage, severity: float, rng: np.random.Generator) -> FloatImage:
    """Compress as JPEG; severity 0 to 1 is quality 95 to 30, the range of LQSeg."""
    worst, best = LQSEG.jpeg_quality
    return jpeg_step(image, round(_between(best, worst, severity)))


def _between(mild: float, severe: float, severity: float) -> float:
    return mild + (severe - mild) * severity


VISIBILITY: Mapping[str, Apply] = {
    "haze": haze,
    "low_contrast": low_contrast,
    "darkness": darkness,
}
"""Degradations of our own, which are in no LQSeg recipe."""

UNSEEN: Mapping[str, Apply] = ROBUSTSEG
"""The unseen test of the paper's tables."""

SINGLE: Mapping[str, Apply] = {
    **UNSEEN,
    **VISIBILITY,
    "blur": blur,
    "noise": noise,
    "jpeg": jpeg,
}
"""All degradations of `degrade_single`, by name."""

WARPS = ("elastic_transform",)
"""The degradations that move what an image shows, so that its masks have to move too."""
