"""Degrade images as LQSeg does: a clear image in, a low-quality one of the same size out.

low = degrade(image, level=2, seed=7)             # uint8 RGB [H,W,3], LQ-2
recipe = sample_recipe(level=2, seed=7)           # what was drawn, as plain frozen data
same = apply_recipe(image, recipe)                # the same bytes as `low`
fog = degrade_single(image, "haze", severity=0.6) # no LQSeg recipe contains it
"""

from glesam_evaluation.degrade.apply import apply_recipe, degrade
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
    sample_recipe,
)
from glesam_evaluation.degrade.single import SINGLE, UNSEEN, degrade_single

__all__ = [
    "LQSEG",
    "SINGLE",
    "UNSEEN",
    "Blur",
    "Jpeg",
    "Noise",
    "Pass",
    "PassSettings",
    "Recipe",
    "Resize",
    "Settings",
    "apply_recipe",
    "degrade",
    "degrade_single",
    "sample_recipe",
]
