"""Set the sizes and lengths of every step that makes nano."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from glesam_training.examples import CLEAR
from glesam_training.nano.kinds import NanoName
from glesam_training.settings import TrainingSettings


@dataclass(frozen=True)
class Recipe:
    """Sizes and lengths of every step."""

    scenes: int
    pictures: int
    """Number of scenes that Algorithm 1 sees, each in `variants` degraded versions."""
    variants: int
    levels: tuple[int, ...]
    """Levels of degradation that Algorithm 1 sees, as in `ExampleOptions`."""
    sam: TrainingSettings
    """SAM-nano on scenes as they are painted."""
    varied: TrainingSettings
    """SAM-nano continued on scenes turned, mirrored, and with less colour and light."""
    base: TrainingSettings
    fit_pairs: int
    """Pairs of latents that the adapters of head and tail are fitted to."""
    enhancer: TrainingSettings
    decoder: TrainingSettings
    background: TrainingSettings
    """The embedding of background points, trained last: SAM-nano saw such points only near an
    object, and lost the object when they were far from it."""
    mask_weight: float
    masks: int = 2
    """Masks per picture in Algorithm 1."""
    tune_decoder: bool = False
    """Whether the packed decoder has gone through stage 2. On SAM-nano, stage 2 loses a third of
    the enhancer's gain on degraded pictures and half a point on clear ones (docs/nano.md)."""
    preset: NanoName = "nano"
    """The SAM: nano, or nano2 for a SAM 2 of the same size."""
    distilled: TrainingSettings | None = None
    """The encoder on the latents of the nano that ships, in the place of `sam`; None starts the
    SAM from scratch."""
    degradations: str = "paper"
    """Recipe of the degradations, a key of `degrade.RECIPES`."""
    crop: int = 128
    """Side in pixels of the base's training images: 16 x 16 latents, as many as z_L has."""


def _settings(
    iterations: int, lr: float, warmup: int, batch: int = 16, weight_decay: float = 0.01
) -> TrainingSettings:
    """Return a step's settings: bf16 if the machine has it, learning rate falling to zero."""
    return TrainingSettings(
        iterations=iterations,
        batch=batch,
        lr=lr,
        warmup=warmup,
        decay=True,
        weight_decay=weight_decay,
        workers=None,
        mixed_precision="auto",
    )


FULL = Recipe(
    scenes=16_000,
    pictures=2000,
    variants=4,
    levels=(CLEAR, 1, 2, 3),
    sam=_settings(900, lr=1.5e-3, warmup=100, batch=128, weight_decay=0.02),
    varied=_settings(3800, lr=1.3e-3, warmup=30, batch=128, weight_decay=0.02),
    base=_settings(600, lr=1e-3, warmup=50, batch=32),
    fit_pairs=1280,
    enhancer=_settings(2000, lr=3e-3, warmup=50),
    decoder=_settings(400, lr=2e-4, warmup=20),
    background=_settings(200, lr=0.03, warmup=20, weight_decay=0),
    mask_weight=0.2,
)
"""The recipe of the nano that ships."""


def _in_float32(recipe: Recipe) -> Recipe:
    """Return a recipe in float32, in which a CPU computes Hiera's small layers faster."""
    named = {
        each.name: getattr(recipe, each.name)
        for each in fields(recipe)
        if isinstance(getattr(recipe, each.name), TrainingSettings)
    }
    # All steps alike: one process cannot train in two precisions.
    return replace(
        recipe, **{name: replace(each, mixed_precision="no") for name, each in named.items()}
    )


NANO2 = _in_float32(
    replace(
        FULL,
        preset="nano2",
        distilled=_settings(1100, lr=2e-3, warmup=50, batch=32, weight_decay=0.02),
        varied=_settings(600, lr=6e-4, warmup=30, batch=32, weight_decay=0.02),
    )
)
"""The recipe of nano2, for two CPU cores: its SAM starts from nano's."""


def _short(settings: TrainingSettings, iterations: int, batch: int = 8) -> TrainingSettings:
    return replace(settings, iterations=iterations, batch=batch, log_every=max(1, iterations // 4))


QUICK = replace(
    FULL,
    scenes=64,
    pictures=32,
    sam=_short(FULL.sam, 24),
    varied=_short(replace(FULL.varied, warmup=0, lr=6e-4), 24),
    base=_short(FULL.base, 24),
    fit_pairs=128,
    enhancer=_short(replace(FULL.enhancer, warmup=0), 40),
    # Its loss falls least; with smaller batches the mean would change as much by chance.
    decoder=_short(replace(FULL.decoder, warmup=0, lr=1e-3), 40, batch=16),
    background=_short(FULL.background, 24),
    tune_decoder=True,
)
"""The same steps in minutes, to test that they fit together and that losses fall."""

QUICK2 = _in_float32(replace(QUICK, preset="nano2"))
"""The same for nano2, from scratch: after seconds with nano's latents its own would still be the
same for every picture, and an enhancer could not learn what they lack."""

RECIPES: dict[tuple[NanoName, bool], Recipe] = {
    ("nano", False): FULL,
    ("nano", True): QUICK,
    ("nano2", False): NANO2,
    ("nano2", True): QUICK2,
}
"""By preset, and whether it is the quick one."""


def ablation_recipe(preset: NanoName, quick: bool) -> Recipe:
    """Return a recipe with a short stage 1, so that an ablation can train one for every value."""
    recipe = RECIPES[preset, quick]
    if quick:
        return recipe
    stage = replace(recipe.enhancer, iterations=300, batch=8)
    return replace(recipe, pictures=400, fit_pairs=640, enhancer=stage)


def table_recipe(preset: NanoName, quick: bool) -> Recipe:
    """Return a recipe with a shorter Algorithm 1, for every row of Table 5 and three seeds."""
    recipe = RECIPES[preset, quick]
    if quick:
        return recipe
    first = replace(recipe.enhancer, iterations=500, batch=8)
    return replace(recipe, enhancer=first, decoder=replace(recipe.decoder, iterations=200, batch=8))
