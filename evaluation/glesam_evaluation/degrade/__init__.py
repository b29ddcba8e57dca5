"""Degrade images as LQSeg does: a clear image in, a low-quality one of the same size out.

low = degrade(image, level=2, seed=7)             # uint8 RGB [H,W,3], LQ-2
low = degrade(image, 2, 7, RECIPES["released"])   # as the authors' code does, not as they write
recipe = sample_recipe(level=2, seed=7)           # what was drawn, as plain frozen data
same = apply_recipe(image, recipe)                # the same bytes as `low`
fog = degrade_single(image, "fog", severity=1)     # one of RobustSeg's, as it is published
"""

from glesam_evaluation.degrade.lqseg import apply_recipe, degrade, sample_recipe
from glesam_evaluation.degrade.recipe import (
    LQSEG,
    Blur,
    Jpeg,
    Noise,
    Pass,
    PassSettings,
    Recipe,
    Resize,
    Settings,
)
from glesam_evaluation.degrade.released import (
    RECIPES,
    RELEASED,
    RELEASED_TEST,
    ReleasedRecipe,
    ReleasedSettings,
    recipe_settings,
)
from glesam_evaluation.degrade.single import (
    SINGLE,
    UNSEEN,
    VISIBILITY,
    WARPS,
    Single,
    degrade_single,
    degrade_with_masks,
)

__all__ = [
    "LQSEG",
    "RECIPES",
    "RELEASED",
    "RELEASED_TEST",
    "SINGLE",
    "UNSEEN",
    "VISIBILITY",
    "WARPS",
    "Blur",
    "Jpeg",
    "Noise",
    "Pass",
    "PassSettings",
    "Recipe",
    "ReleasedRecipe",
    "ReleasedSettings",
    "Resize",
    "Settings",
    "Single",
    "apply_recipe",
    "degrade",
    "degrade_single",
    "degrade_with_masks",
    "recipe_settings",
    "sample_recipe",
]
