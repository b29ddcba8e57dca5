"""Say what an ablation varies, and build the enhancer that each variant starts from.

The paper varies gamma (Fig. 6), the rank (Table 8), and leaves out channel replication (CRE) and
the adaption weight (FDA) (Tables 4 and 6). Varied here too: the levels of degradation, their
recipe, and the input of the encoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from glesam_export.checkpoints import Checkpoint, lora, stable_diffusion, state_dicts, write
from glesam_export.checkpoints.stable_diffusion import SD_CHANNELS
from glesam_export.enhancer.reference import Enhancer, add_lora
from glesam_export.families import InputName
from glesam_runtime.errors import InputError
from glesam_runtime.interface import LATENT_CHANNELS
from glesam_training.examples import CLEAR, DRAWN
from glesam_training.nano.kinds import Kind
from glesam_training.train import new_adapters

RANK = 16
"""Rank of the adapters where it is not varied, as in nano."""

LARGEST_RANK = 256
"""Above the width of nano's layers, a rank only takes memory."""

RANKS = (4, 8, 16)
"""The ranks of the paper's Table 8."""

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""The gammas of an ablation, as multiples of the model's own."""

LEVELS = ((1,), (1, 2), (1, 2, 3), (CLEAR, 1, 2, 3))

INPUTS: tuple[InputName, ...] = ("sam", "released")


@dataclass(frozen=True)
class Variant:
    """One row of an ablation.

    Attributes:
        name: how tables call it.
        gamma: adaption weight; 1 is a model without FDA.
        rank: rank of the adapters; head and tail have twice as much, up to their channels.
        levels: levels of degradation that it is trained on.
        cre: whether head and tail are widened by channel replication; otherwise two 1 x 1
            convolutions are learnt.
        fitted: whether the adapters of head and tail are fitted first, as nano's are.
        recipe: recipe of the degradations that it is trained on.
        input: how pictures become the encoder's input in training.
        wide: whether it is trained on pictures of 4:3 and 16:9; otherwise they are square, for
            which inputs differ in sharpness alone.
    """

    name: str
    gamma: float
    rank: int = RANK
    levels: tuple[int, ...] = (CLEAR, 1, 2, 3)
    cre: bool = True
    fitted: bool = True
    recipe: str = "paper"
    input: InputName = "sam"
    wide: bool = False

    @property
    def key(self) -> str:
        """Return the name of its folder: rows of several tables that are equal train once."""
        levels = "+".join("drawn" if level == DRAWN else str(level) for level in self.levels)
        parts = [f"gamma-{self.gamma:g}", f"rank-{self.rank}", f"levels-{levels}"]
        parts += [] if self.cre else ["without-CRE"]
        parts += [] if self.fitted else ["not-fitted"]
        parts += [] if self.recipe == "paper" else [f"recipe-{self.recipe}"]
        return "-".join([*parts, f"input-{self.input}", "wide"] if self.wide else parts)


def variants_of(kind: Kind, values: str | None, gamma: float) -> list[Variant]:
    """Return the rows of an ablation.

    Args:
        kind: what is varied.
        values: comma-separated values; None has those above. The levels of one row are joined by +.
        gamma: the model's own gamma.

    Raises:
        InputError: a value is not usable, or what is varied has no values.
    """
    own = Variant("own", gamma)
    if kind in ("parts", "recipe", "input") and values is not None:
        raise InputError(f"--values {values}: {kind} has no values; leave it out")
    if kind == "recipe":
        drawn = (CLEAR, DRAWN, DRAWN, DRAWN)
        return [
            replace(own, name="recipe paper"),
            replace(own, name="recipe released", recipe="released", levels=drawn),
        ]
    if kind == "input":
        return [replace(own, name=f"input {each}", input=each, wide=True) for each in INPUTS]
    if kind == "parts":
        bare = replace(own, fitted=False)
        return [
            replace(bare, name="CRE and FDA"),
            replace(bare, name="without CRE", cre=False),
            replace(bare, name="without FDA", gamma=1.0),
            replace(bare, name="without both", cre=False, gamma=1.0),
        ]
    words = [word.strip() for word in values.split(",")] if values is not None else None
    if kind == "gamma":
        gammas = [factor * gamma for factor in FACTORS] if words is None else _gammas(words)
        return [replace(own, name=f"gamma {each:g}", gamma=each) for each in gammas]
    if kind == "rank":
        ranks = RANKS if words is None else _ranks(words)
        return [replace(own, name=f"rank {each}", rank=each) for each in ranks]
    levels = LEVELS if words is None else _levels(words)
    return [
        replace(own, name="levels " + "+".join(str(level) for level in each), levels=each)
        for each in levels
    ]


def _gammas(words: Sequence[str]) -> list[float]:
    found = []
    for word in dict.fromkeys(words):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"--values {word}: a gamma must be a positive number")
        found.append(value)
    return found


def _ranks(words: Sequence[str]) -> list[int]:
    for word in words:
        if not (word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= LARGEST_RANK):
            raise InputError(
                f"--values {word}: a rank must be a whole number from 1 to {LARGEST_RANK}"
            )
    return [int(word) for word in dict.fromkeys(words)]


def _levels(words: Sequence[str]) -> list[tuple[int, ...]]:
    for word in words:
        parts = word.split("+")
        if not set(parts) <= set("0123") or not set(parts) & set("123"):
            raise InputError(
                f"--values {word}: join levels by +, such as 1+2+3: 1, 2 and 3 are LQ-1 to LQ-3, 0 "
                "is the clear image and needs another beside it"
            )
    return [tuple(int(level) for level in word.split("+")) for word in dict.fromkeys(words)]


class ProjectedUNet(nn.Module):
    """A 4-channel U-Net between two learnt 1 x 1 convolutions, in the place of CRE.

    It takes and returns 256 channels, as a U-Net with CRE does.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.before = nn.Conv2d(LATENT_CHANNELS, SD_CHANNELS, 1)
        self.unet = unet
        self.behind = nn.Conv2d(SD_CHANNELS, LATENT_CHANNELS, 1)

    def forward(
        self, sample: Tensor, timestep: int, text: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Estimate the noise of a latent [N, 256, s, s]."""
        inner = self.unet(self.before(sample), timestep, text, return_dict=False)[0]
        return (self.behind(inner),)


def new_enhancer(base: Checkpoint, variant: Variant, seed: int) -> Enhancer:
    """Return a checkpoint's enhancer with new adapters, which have no effect yet.

    Args:
        base: its base U-Net, text and timestep are used.
        variant: what the new enhancer is like.
        seed: seed of the adapters and of the 1 x 1 convolutions.
    """
    old = base.enhancer()
    state = write.base_state(old.unet)
    unet: Any
    if variant.cre:
        unet, channels = stable_diffusion.unet(state, base.unet), LATENT_CHANNELS
    else:
        unet, channels = stable_diffusion.on_meta(base.unet, SD_CHANNELS), SD_CHANNELS
        state_dicts.assign(unet, state)
    ends = min(2 * variant.rank, unet.conv_in.out_channels)
    ranks = {"conv_in": ends, "conv_out": ends}
    factors = new_adapters(base.unet, variant.rank, seed, ranks, channels=channels)
    add_lora(unet, lora.parse(factors, unet, "new adapters"))
    if not variant.cre:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet = ProjectedUNet(unet)
    made = Enhancer(unet, old.text.clone(), variant.gamma, base.timestep, base.alpha_bar)
    return made.eval().requires_grad_(False)
