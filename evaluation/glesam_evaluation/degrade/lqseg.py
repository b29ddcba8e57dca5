"""LQSeg: the two passes that turn a clear image into LQ-1, LQ-2 or LQ-3."""

from __future__ import annotations

from glesam_evaluation.degrade.kernels import blur_kernel
from glesam_evaluation.degrade.recipe import Pass, Recipe, sample_recipe
from glesam_evaluation.degrade.settings import LQSEG, Settings
from glesam_evaluation.degrade.steps import (
    FloatImage,
    Image,
    add_noise,
    blur,
    check_image,
    jpeg,
    resize,
    to_float,
    to_uint8,
)


def degrade(image: Image, level: int, seed: int, settings: Settings = LQSEG) -> Image:
    """Degrade `image` to LQ-`level` (GleSAM, Sec. 4.1 and 8).

    Args:
        image: uint8 RGB [H,W,3], any size from 1x1 on.
        level: 1, 2 or 3, for a final down-sampling by 1, 2 or 4.
        seed: a whole number >= 0. The same seed gives the same bytes on one machine, and the same
            parameters at every level.
        settings: ranges and probabilities; LQSeg's unless given.

    Returns:
        uint8 RGB [H,W,3] of the original size: masks and prompts stay in original pixels, so the
        small image is enlarged again (bicubic). That adds no detail; what the level took is gone.

    Raises:
        InputError: another shape or dtype, an unknown level, or a negative seed.
    """
    return apply_recipe(image, sample_recipe(level, seed, settings))


def apply_recipe(image: Image, recipe: Recipe) -> Image:
    """Do to uint8 RGB [H,W,3] exactly what `recipe` says; same size and dtype out.

    The second pass's JPEG comes after the final down-sampling: the last loss is that of the small
    file one is sent. Sampling down after it would smooth the noise, and LQ-3 be cleaner than LQ-1.

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
    """Run a pass up to its JPEG; out comes `one.resize.scale` times [height,width,3]."""
    if one.blur is not None:
        pixels = blur(pixels, blur_kernel(one.blur))
    scale = one.resize.scale
    pixels = resize(pixels, _scaled(height, scale), _scaled(width, scale), one.resize.method)
    return add_noise(pixels, one.noise)


def _scaled(side: int, scale: float) -> int:
    return max(1, round(side * scale))
