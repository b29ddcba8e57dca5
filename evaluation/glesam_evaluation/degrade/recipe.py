"""What exactly will be done to an image: one degradation's parameters, drawn from a seed.

Drawing is apart from doing, so that a recipe can be tested, kept in a manifest and run again.
Every class is a frozen dataclass of numbers and strings: `dataclasses.asdict` or
`msgspec.json.encode` writes a recipe, `msgspec.json.decode(..., type=Recipe)` reads it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from glesam_evaluation.degrade.settings import LQSEG, PassSettings, Range, Settings
from glesam_evaluation.seeds import generator
from glesam_runtime.errors import InputError

BlurKind = Literal["gaussian", "generalized", "plateau", "sinc"]
ResizeMethod = Literal["area", "bilinear", "bicubic"]
NoiseKind = Literal["gaussian", "poisson"]


@dataclass(frozen=True)
class Blur:
    """A kernel of `size` x `size` pixels (see `kernels`); fields that a kind does not use are 0."""

    kind: BlurKind
    size: int
    sigma_x: float = 0.0
    """Pixels, along the kernel's first axis; equal to `sigma_y` for an isotropic kernel."""
    sigma_y: float = 0.0
    angle: float = 0.0
    """Of the first axis, radians, in [0, pi)."""
    beta: float = 0.0
    cutoff: float = 0.0
    """Radians a pixel; sinc only."""


@dataclass(frozen=True)
class Resize:
    """`scale` is of the pass's target size, equal for height and width."""

    method: ResizeMethod
    scale: float


@dataclass(frozen=True)
class Noise:
    """`strength` is sigma of 255 (gaussian) or the shot noise's factor (poisson)."""

    kind: NoiseKind
    strength: float
    gray: bool
    seed: int
    """Of the noise itself, so that a recipe alone decides every pixel."""


@dataclass(frozen=True)
class Jpeg:
    """`quality` as libjpeg counts it, 1 to 100."""

    quality: int


@dataclass(frozen=True)
class Pass:
    """Blur (None: skipped), resize, noise, JPEG."""

    blur: Blur | None
    resize: Resize
    noise: Noise
    jpeg: Jpeg


@dataclass(frozen=True)
class Recipe:
    """Two passes; the second works at 1/`rate` of the original size and ends exactly there."""

    level: int
    rate: int
    first: Pass
    second: Pass
    final: ResizeMethod
    """How the second pass reaches its exact size."""


def sample_recipe(level: int, seed: int, settings: Settings = LQSEG) -> Recipe:
    """Draw the degradation of `level` (1 to 3) that belongs to `seed`.

    A seed draws the same parameters at every level; the levels differ in `rate` alone, so that
    LQ-1, LQ-2 and LQ-3 of one image and seed can be compared.

    Raises:
        InputError: level outside the settings' rates, or a seed that is not a whole number >= 0.
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
        resize=Resize(method=_sample_method(rng, settings), scale=_sample_scale(rng, one)),
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


def _sample_scale(rng: np.random.Generator, one: PassSettings) -> float:
    low, high = one.scale
    direction = rng.random()
    if direction < one.p_up:
        return _uniform(rng, (1.0, high))
    if direction < one.p_up + one.p_down:
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
