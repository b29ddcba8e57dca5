"""Draw the degradations of GleSAM's released code, which differ from the text of its paper.

The repository guangqian-guo/GleSAM (last commit of August 2025) degrades images in two places, with
different parameters. `RELEASED` is the loader that makes the training pairs while a model is
trained (options/lrseg_add_mask_multi_dataset_ms.yaml). `RELEASED_TEST` is the script that makes the
test sets beforehand (degraded_utils/utils_data/make_paired_data_guo.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from glesam_evaluation.degrade.recipe import (
    LQSEG,
    Blur,
    BlurKind,
    Jpeg,
    Noise,
    Pass,
    Range,
    Resize,
    ResizeMethod,
    Settings,
    sample_scale,
)
from glesam_evaluation.seeds import generator
from glesam_runtime.errors import InputError

_T = TypeVar("_T")

KERNELS: Mapping[tuple[BlurKind, bool], float] = {
    ("gaussian", False): 0.45,
    ("gaussian", True): 0.25,
    ("generalized", False): 0.12,
    ("generalized", True): 0.03,
    ("plateau", False): 0.12,
    ("plateau", True): 0.03,
}
"""Probability of each kernel that is not sinc, by its kind and whether it is anisotropic."""

WIDE_SINC = 13
"""Size of a kernel from which the cutoff of sinc may be as low as pi / 5 instead of pi / 3."""


@dataclass(frozen=True)
class ReleasedPass:
    """The settings of one pass. `scale` contains 1, as in `recipe.PassSettings`."""

    p_up: float
    p_down: float
    scale: Range
    sigma: Range
    """Standard deviation of a blur along either axis of the kernel, pixels."""
    gaussian_sigma: Range
    """Standard deviation of Gaussian noise, of 255."""
    poisson_scale: Range
    p_blur: float = 1.0


@dataclass(frozen=True)
class ReleasedSettings:
    """The settings of `RELEASED` and `RELEASED_TEST`; the fields without defaults differ."""

    first: ReleasedPass
    second: ReleasedPass
    reuses_kernel: bool
    """Whether the second blur takes the kernel of the first one, as the training loader does. That
    loader draws a second kernel, but never uses it."""
    sharpens: bool
    """Whether the clear image is sharpened before it is degraded. The options of the training
    loader contain `gt_usm: True`, but no line of its code reads it."""
    squares_first: bool
    """Whether an image is resized to a square before it is degraded, or at the end."""
    drawn_rates: tuple[int, ...]
    """Rates of the down-sampling from which one is drawn if no level is given."""

    rates: tuple[int, ...] = (1, 2, 4)
    """Rates of LQ-1, LQ-2 and LQ-3."""
    kernel_sizes: tuple[int, ...] = (7, 9, 11, 13, 15, 17, 19, 21)
    p_sinc: float = 0.1
    beta_generalized: Range = (0.5, 4.0)
    """Half of the kernels draw beta below 1, the others above."""
    beta_plateau: Range = (1.0, 2.0)
    """Half of the kernels draw beta below 1. Nothing lies there, so they have beta = 1."""
    resize_methods: tuple[ResizeMethod, ...] = ("bilinear", "bicubic", "area")
    p_poisson: float = 0.5
    p_gray: float = 0.4
    jpeg_quality: Range = (30.0, 95.0)
    """Rounded down, so that 95 itself has probability 0."""
    p_last_sinc: float = 0.8
    p_jpeg_last: float = 0.5


RELEASED = ReleasedSettings(
    first=ReleasedPass(0.1, 0.2, (0.5, 1.5), (0.2, 3.0), (1.0, 30.0), (0.05, 3.0)),
    second=ReleasedPass(0.3, 0.4, (0.3, 1.2), (0.2, 1.5), (1.0, 25.0), (0.05, 2.5), p_blur=0.8),
    reuses_kernel=True,
    sharpens=False,
    squares_first=True,
    drawn_rates=(1, 2, 3, 3, 4, 4, 4, 4),
)
"""Settings of the training loader. Both training scripts name the options file with these rates."""

RELEASED_TEST = ReleasedSettings(
    first=ReleasedPass(0.2, 0.7, (0.15, 1.5), (0.2, 3.0), (1.0, 30.0), (0.05, 3.0)),
    second=ReleasedPass(0.3, 0.4, (0.3, 1.2), (0.2, 1.5), (1.0, 25.0), (0.05, 2.5), p_blur=0.8),
    reuses_kernel=False,
    sharpens=True,
    squares_first=False,
    drawn_rates=(2,),
)
"""Settings of the script for the test sets. It ignores its option `sf`: the rate is always 2."""

RECIPES: Mapping[str, Settings | ReleasedSettings] = {
    "paper": LQSEG,
    "released": RELEASED,
    "released-test": RELEASED_TEST,
}
"""All recipes by name."""


@dataclass(frozen=True)
class ReleasedRecipe:
    """A degradation of two passes, as the released code applies it."""

    level: int | None
    """None if the rate was drawn."""
    rate: int
    first: Pass
    second: Pass
    """Its scale is that of the image at 1/`rate` of its size. Its JPEG is the last one."""
    back: ResizeMethod
    """Method of the resize to the original size."""
    last_sinc: Blur | None
    """The filter after that resize; None is no filter."""
    jpeg_last: bool
    """Whether the JPEG comes after the resize and its filter, or before them."""
    sharpens: bool
    squares_first: bool


def recipe_settings(name: str) -> Settings | ReleasedSettings:
    """Return the settings of a recipe by name.

    Raises:
        InputError: there is no such recipe.
    """
    if name not in RECIPES:
        raise InputError(f"recipe {name!r}: must be one of {', '.join(RECIPES)}")
    return RECIPES[name]


def sample_released(level: int | None, seed: int, settings: ReleasedSettings) -> ReleasedRecipe:
    """Draw the degradation of a level (1 to 3), or of a drawn rate if the level is None.

    A seed draws the same parameters at every level, except the rate.

    Raises:
        InputError: there is no such level, or the seed is not a whole number >= 0.
    """
    levels = len(settings.rates)
    if isinstance(level, bool) or (level is not None and level not in range(1, levels + 1)):
        raise InputError(f"degradation level {level!r}: must be a whole number from 1 to {levels}")
    rng = generator(seed)
    first = _sample_pass(rng, settings, settings.first)
    second = _sample_pass(rng, settings, settings.second)
    if settings.reuses_kernel and second.blur is not None:
        second = Pass(first.blur, second.resize, second.noise, second.jpeg)
    back = _choice(rng, settings.resize_methods)
    last_sinc = _sample_sinc(rng, settings) if rng.random() < settings.p_last_sinc else None
    jpeg_last = bool(rng.random() < settings.p_jpeg_last)
    drawn = _choice(rng, settings.drawn_rates)
    return ReleasedRecipe(
        level=None if level is None else int(level),
        rate=drawn if level is None else settings.rates[int(level) - 1],
        first=first,
        second=second,
        back=back,
        last_sinc=last_sinc,
        jpeg_last=jpeg_last,
        sharpens=settings.sharpens,
        squares_first=settings.squares_first,
    )


def _sample_pass(rng: np.random.Generator, settings: ReleasedSettings, one: ReleasedPass) -> Pass:
    blur = _sample_blur(rng, settings, one) if rng.random() < one.p_blur else None
    poisson = rng.random() < settings.p_poisson
    return Pass(
        blur=blur,
        resize=Resize(
            method=_choice(rng, settings.resize_methods),
            scale=sample_scale(rng, one.scale, one.p_up, one.p_down),
        ),
        noise=Noise(
            kind="poisson" if poisson else "gaussian",
            strength=_uniform(rng, one.poisson_scale if poisson else one.gaussian_sigma),
            gray=bool(rng.random() < settings.p_gray),
            seed=int(rng.integers(2**32)),
        ),
        jpeg=Jpeg(quality=int(_uniform(rng, settings.jpeg_quality))),
    )


def _sample_blur(rng: np.random.Generator, settings: ReleasedSettings, one: ReleasedPass) -> Blur:
    if rng.random() < settings.p_sinc:
        return _sample_sinc(rng, settings, wide=math.pi / 5)
    size = _choice(rng, settings.kernel_sizes)
    kinds = list(KERNELS)
    kind, anisotropic = kinds[int(rng.choice(len(kinds), p=list(KERNELS.values())))]
    beta = 1.0
    if kind == "generalized":
        beta = _sample_beta(rng, settings.beta_generalized)
    elif kind == "plateau":
        beta = _sample_beta(rng, settings.beta_plateau)
    sigma_x = sigma_y = _uniform(rng, one.sigma)
    angle = 0.0
    if anisotropic:
        sigma_y = _uniform(rng, one.sigma)
        angle = _uniform(rng, (-math.pi, math.pi))
    return Blur(kind=kind, size=size, sigma_x=sigma_x, sigma_y=sigma_y, angle=angle, beta=beta)


def _sample_sinc(
    rng: np.random.Generator, settings: ReleasedSettings, wide: float = math.pi / 3
) -> Blur:
    """Draw a sinc kernel; `wide` is the lowest cutoff of the kernels from WIDE_SINC pixels on."""
    size = _choice(rng, settings.kernel_sizes)
    lowest = math.pi / 3 if size < WIDE_SINC else wide
    return Blur(kind="sinc", size=size, cutoff=_uniform(rng, (lowest, math.pi)))


def _sample_beta(rng: np.random.Generator, bounds: Range) -> float:
    low, high = bounds
    return _uniform(rng, (low, 1.0) if rng.random() < 0.5 else (1.0, high))


def _choice(rng: np.random.Generator, values: Sequence[_T]) -> _T:
    return values[int(rng.integers(len(values)))]


def _uniform(rng: np.random.Generator, bounds: Range) -> float:
    return float(rng.uniform(*bounds))
