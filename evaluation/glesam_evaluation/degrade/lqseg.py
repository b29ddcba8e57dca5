"""Degrade images as LQSeg does, by the paper's recipe or by one of the released code.

The functions choose by the type of the settings or of the recipe.
"""

from __future__ import annotations

from typing import overload

from glesam_evaluation.degrade import apply, recipe
from glesam_evaluation.degrade.apply import Image
from glesam_evaluation.degrade.apply_released import apply_released
from glesam_evaluation.degrade.recipe import LQSEG, Recipe, Settings
from glesam_evaluation.degrade.released import ReleasedRecipe, ReleasedSettings, sample_released
from glesam_runtime.errors import InputError


def degrade(
    image: Image,
    level: int | None,
    seed: int,
    settings: Settings | ReleasedSettings = LQSEG,
    side: int | None = None,
) -> Image:
    """Degrade an image to LQ-`level` (GleSAM, Sec. 4.1 and 8).

    Args:
        image: uint8 RGB [H,W,3], any size from 1x1 on.
        level: 1, 2 or 3, for a final down-sampling by 1, 2 or 4. The released recipes also take
            None, which draws the rate of the down-sampling.
        seed: a whole number >= 0. The same seed gives the same bytes on one machine, and the same
            parameters at every level.
        settings: a value of `released.RECIPES`; the default is the paper's recipe.
        side: side of a square result in pixels, for the released recipes; None keeps the size.

    Returns:
        uint8 RGB [H,W,3] of the original size. The small image is enlarged again, because masks and
        prompts are in pixels of the original. This does not restore lost detail.

    Raises:
        InputError: the image has another shape or dtype, the level is unknown, the seed is not a
            whole number >= 0, or the recipe takes no side.
    """
    return apply_recipe(image, sample_recipe(level, seed, settings), side)


@overload
def sample_recipe(level: int | None, seed: int, settings: Settings = LQSEG) -> Recipe: ...


@overload
def sample_recipe(level: int | None, seed: int, settings: ReleasedSettings) -> ReleasedRecipe: ...


@overload
def sample_recipe(
    level: int | None, seed: int, settings: Settings | ReleasedSettings
) -> Recipe | ReleasedRecipe: ...


def sample_recipe(
    level: int | None, seed: int, settings: Settings | ReleasedSettings = LQSEG
) -> Recipe | ReleasedRecipe:
    """Draw the degradation of a level for a seed.

    Raises:
        InputError: the settings have no such level, or the seed is not a whole number >= 0.
    """
    if isinstance(settings, ReleasedSettings):
        return sample_released(level, seed, settings)
    if level is None:
        raise InputError("degradation level None: the paper's recipe needs a level from 1 to 3")
    return recipe.sample_recipe(level, seed, settings)


def apply_recipe(image: Image, drawn: Recipe | ReleasedRecipe, side: int | None = None) -> Image:
    """Apply a recipe to an image, uint8 RGB [H,W,3]; the size and dtype stay the same.

    Args:
        image: uint8 RGB [H,W,3].
        drawn: the recipe.
        side: side of a square result in pixels, for a released recipe; None keeps the size.

    Raises:
        InputError: the image is not uint8 RGB [H,W,3], or the recipe takes no such side.
    """
    if side is not None and not 1 <= side <= apply.MAX_SIDE:
        raise InputError(f"side {side}: must be from 1 to {apply.MAX_SIDE} pixels")
    if isinstance(drawn, ReleasedRecipe):
        return apply_released(image, drawn, side)
    if side is not None:
        raise InputError(
            f"side {side}: the paper's recipe keeps the size of an image; leave it out"
        )
    return apply.apply_recipe(image, drawn)
