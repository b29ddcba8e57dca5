"""Draw a recipe from a seed: all parameters of one degradation, and the ranges they come from.

A recipe is drawn before it is applied, so that it can be tested, stored in a manifest and run
again. Every class is a frozen dataclass of numbers and strings. `dataclasses.asdict` or
`msgspec.json.encode` writes a recipe, and `msgspec.json.decode(..., type=Recipe)` reads it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from glesam_evaluation.seeds import generator
from glesam_runtime.errors import InputError

Range = tuple[float, float]
"""A closed interval (low, high) of a uniform distribution."""


@dataclass(frozen=True)
class PassSettings:
    """Settings that differ between the passes. Scales are relative to the pass's target size."""

    p_blur: float
    p_up: float
    """Probability of enlarging. `p_down` is that of shrinking; otherwise the size is kept."""
    p_down: float
    scale: Range
    """Smallest and largest factor. It contains 1: enlarging draws from above 1, shrinking below."""


@dataclass(frozen=True)
class Settings:
    """The ranges and probabilities that `sample_recipe` draws from; LQSeg's by default.

    The values come from GleSAM (arXiv 2503.12507), Sec. 4.1 and 8, and hold for both passes, unless
    a field says otherwise. Values that GleSAM does not publish come from Real-ESRGAN (arXiv
    2107.10833, Sec. 4.1 and its published training options), whose two-pass scheme LQSeg follows,
    or are our own choice.
    """

    first: PassSettings = PassSettings(p_blur=1.0, p_up=0.2, p_down=0.7, scale=(0.15, 1.5))
    """GleSAM gives no scales; these are the training options of Real-ESRGAN."""
    second: PassSettings = PassSettings(p_blur=0.8, p_up=0.3, p_down=0.4, scale=(0.3, 1.2))
    """The second blur is skipped with probability 0.2. The source of the scales is that of
    `first`."""
    rates: tuple[int, ...] = (1, 2, 4)
    """Factor of the final down-sampling of LQ-1, LQ-2 and LQ-3."""

    kernel_sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    sigma: Range = (0.2, 3.0)
    """Standard deviation of a blur along either axis of the kernel, pixels."""
    p_sinc: float = 0.1
    p_generalized: float = 0.15
    """Share of the kernels that are not sinc (Real-ESRGAN), like `p_plateau`; the rest is
    Gaussian."""
    p_plateau: float = 0.15
    beta_generalized: Range = (0.5, 4.0)
    beta_plateau: Range = (1.0, 2.0)
    p_anisotropic: float = 0.35
    """Both papers use anisotropic kernels without giving a share; this value is our choice."""
    cutoff: Range = (math.pi / 3, math.pi)
    """Cutoff of sinc, radians per pixel. Our choice, up to the limit of the pixel grid."""

    resize_methods: tuple[str, ...] = ("area", "bilinear", "bicubic")
    p_poisson: float = 0.5
    gaussian_sigma: Range = (1.0, 30.0)
    """Standard deviation, of 255."""
    poisson_scale: Range = (0.05, 3.0)
    p_gray: float = 0.4
    """Probability that all three channels get the same noise."""
    jpeg_quality: tuple[int, int] = (30, 95)


LQSEG = Settings()
"""Settings of the paper's dataset, LQ-1 to LQ-3."""

BlurKind = Literal["gaussian", "generalized", "plateau", "sinc"]
ResizeMethod = Literal["area", "bilinear", "bicubic"]
NoiseKind = Literal["gaussian", "poisson"]


@dataclass(frozen=True)
class Blur:
    """A blur kernel of `size` x `size` pixels (see `kernels`). Unused fields of a kind are 0."""

    kind: BlurKind
    size: int
    sigma_x: float = 0.0
    """Sigma along the kernel's first axis, pixels; equal to `sigma_y` for an isotropic kernel."""
    sigma_y: float = 0.0
    angle: float = 0.0
    """Direction of the first axis, radians, in [0, pi)."""
    beta: float = 0.0
    cutoff: float = 0.0
    """Radians per pixel; only for sinc."""


@dataclass(frozen=True)
class Resize:
    """A resize; `scale` is relative to the pass's target size, equal for height and width."""

    method: ResizeMethod
    scale: float


@dataclass(frozen=True)
class Noise:
    """Noise; `strength` is sigma of 255 (gaussian) or the factor of the shot noise (poisson)."""

    kind: NoiseKind
    strength: float
    gray: bool
    seed: int
    """Seed of the noise values, so that a recipe fully determines every pixel."""


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression; `quality` is that of libjpeg, 1 to 100."""

    quality: int


@dataclass(frozen=True)
class Pass:
    """One pass: blur (None skips it), resize, noise, JPEG."""

    blur: Blur | None
    resize: Resize
    noise: Noise
    jpeg: Jpeg


@dataclass(frozen=True)
class Recipe:
    """A degradation of two passes. The second ends at exactly 1/`rate` of the original size."""

    level: int
    rate: int
    first: Pass
    second: Pass
    final: ResizeMethod
    """Method of the resize with which the second pass reaches its exact size."""


def sample_recipe(level: int, seed: int, settings: Settings = LQSEG) -> Recipe:
    """Draw the degradation of a level (1 to 3) for a seed.

    A seed draws the same parameters at every level. The levels differ only in `rate`, so that LQ-1,
    LQ-2 and LQ-3 of one image and seed can be compared.

    Raises:
        InputError: the settings have no such level, or the seed is not a whole number >= 0.
    """
    levels = len(settings.rates)
    if isinstance(level, bool) or level not in range(1, levels + 1):
        raise InputError(f"degradation level {level!r}: must be a whole number from 1 to {levels}")
    rng = generator(seed)
    return Recipe(
        level=int(level),
        rate=settings.rates[int(level) - 1],
        first=_sample_pass(rng, settings, settings.first),
        second=_sample_pass(rng, settings, settings.second),
        final=_sample_method(rng, settings),
    )


def _sample_pass(rng: np.random.Generator, settings: Settings, one: PassSettings) -> Pass:
    return Pass(
        blur=_sample_blur(rng, settings) if rng.random() < one.p_blur else None,
        resize=Resize(
            method=_sample_method(rng, settings),
            scale=sample_scale(rng, one.scale, one.p_up, one.p_down),
        ),
        noise=_sample_noise(rng, settings),
        jpeg=Jpeg(quality=int(rng.integers(*settings.jpeg_quality, endpoint=True))),
    )


def _sample_blur(rng: np.random.Generator, settings: Settings) -> Blur:
    size = int(rng.choice(settings.kernel_sizes))
    if rng.random() < settings.p_sinc:
        return Blur(kind="sinc", size=size, cutoff=_uniform(rng, settings.cutoff))

    kind: BlurKind = "gaussian"
    beta = 1.0
    shape = rng.random()
    if shape < settings.p_generalized:
        kind, beta = "generalized", _uniform(rng, settings.beta_generalized)
    elif shape < settings.p_generalized + settings.p_plateau:
        kind, beta = "plateau", _uniform(rng, settings.beta_plateau)

    sigma_x = sigma_y = _uniform(rng, settings.sigma)
    angle = 0.0
    if rng.random() < settings.p_anisotropic:
        sigma_y = _uniform(rng, settings.sigma)
        angle = _uniform(rng, (0.0, np.pi))
    return Blur(kind=kind, size=size, sigma_x=sigma_x, sigma_y=sigma_y, angle=angle, beta=beta)


def sample_scale(rng: np.random.Generator, scale: Range, p_up: float, p_down: float) -> float:
    """Draw the scale of a resize: up to `scale[1]`, down to `scale[0]`, or 1."""
    low, high = scale
    direction = rng.random()
    if direction < p_up:
        return _uniform(rng, (1.0, high))
    if direction < p_up + p_down:
        return _uniform(rng, (low, 1.0))
    return 1.0


def _sample_noise(rng: np.random.Generator, settings: Settings) -> Noise:
    poisson = rng.random() < settings.p_poisson
    return Noise(
        kind="poisson" if poisson else "gaussian",
        strength=_uniform(rng, settings.poisson_scale if poisson else settings.gaussian_sigma),
        gray=bool(rng.random() < settings.p_gray),
        seed=int(rng.integers(2**32)),
    )


def _sample_method(rng: np.random.Generator, settings: Settings) -> ResizeMethod:
    return cast(ResizeMethod, str(rng.choice(settings.resize_methods)))


def _uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(rng.uniform(*bounds))
