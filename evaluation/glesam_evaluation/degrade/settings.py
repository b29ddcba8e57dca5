"""From which ranges and with which probabilities a degradation is drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

Range = tuple[float, float]
"""A closed interval (low, high), drawn from uniformly."""


@dataclass(frozen=True)
class PassSettings:
    """One of the two passes: what differs between them. Scales are of the pass's target size."""

    p_blur: float
    p_up: float
    """Probability of enlarging; of shrinking below, and the size is kept with what remains of 1."""
    p_down: float
    scale: Range
    """Smallest and largest factor; contains 1, so that up draws above it and down below."""


@dataclass(frozen=True)
class Settings:
    """Everything `sample_recipe` draws from. The defaults are LQSeg's.

    Source: GleSAM (arXiv 2503.12507), Sec. 4.1 and 8, for both passes alike, unless a field says
    otherwise. Where that paper is silent the value is Real-ESRGAN's (arXiv 2107.10833, Sec. 4.1
    and its published training options), whose two-pass scheme LQSeg follows, or ours.
    """

    first: PassSettings = PassSettings(p_blur=1.0, p_up=0.2, p_down=0.7, scale=(0.15, 1.5))
    """GleSAM gives no scales: Real-ESRGAN's training options."""
    second: PassSettings = PassSettings(p_blur=0.8, p_up=0.3, p_down=0.4, scale=(0.3, 1.2))
    """The second blur is skipped with probability 0.2; scales as for `first`."""
    rates: tuple[int, ...] = (1, 2, 4)
    """Final down-sampling of LQ-1, LQ-2, LQ-3."""

    kernel_sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    sigma: Range = (0.2, 3.0)
    """Standard deviation of a blur, pixels, along either axis of the kernel."""
    p_sinc: float = 0.1
    p_generalized: float = 0.15
    """Among the kernels that are not sinc (Real-ESRGAN), as `p_plateau`; the rest is Gaussian."""
    p_plateau: float = 0.15
    beta_generalized: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)
    p_anisotropic: float = 0.35
    """Both papers ask for both sorts without a share: this one is ours."""
    cutoff: Range = (math.pi / 3, math.pi)
    """Sinc's cutoff, radians a pixel. Not in the papers: ours, up to what a pixel grid can hold."""

    resize_methods: tuple[str, ...] = ("area", "bilinear", "bicubic")
    p_poisson: float = 0.5
    gaussian_sigma: Range = (1.0, 30.0)
    """Of 255."""
    poisson_scale: Range = (0.05, 3.0)
    p_gray: float = 0.4
    """Probability of one noise value for all three channels."""
    jpeg_quality: tuple[int, int] = (30, 95)


LQSEG = Settings()
"""The paper's data set, LQ-1 to LQ-3."""
