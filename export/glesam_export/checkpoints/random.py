"""Draws a checkpoint from a seed, for development: the right shapes, but meaningless masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from glesam_export.checkpoints import Checkpoint, stable_diffusion, state_dicts
from glesam_export.checkpoints.text_embedding import TOKENS
from glesam_export.enhancer.reference import (
    Enhancer,
    LoraFactors,
    add_lora,
    build_unet,
    replicate_channels,
)
from glesam_export.families import Preset, family_of
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_export.presets import LORA_TARGETS, UNetPreset
from glesam_runtime.interface import LATENT_CHANNELS
from glesam_runtime.manifest import Source

ModuleT = TypeVar("ModuleT", bound=nn.Module)

RANK = 8
"""Rank and alpha of the random adapters, as in the paper."""


class RandomCheckpoint(Checkpoint):
    """Weights from a seed. Every part is the same on each call.

    Norms, positions and the adapters' B, which start at zero or one, are perturbed. So a test finds
    a graph that drops one of them.

    Args:
        seed: seed of all weights.
        preset: the SAM, of any family.
        unet: the U-Net.
        gamma: adaption weight.
        timestep: T.
        origin: where the weights come from, in words.
    """

    trained = False

    def __init__(
        self,
        seed: int,
        preset: Preset,
        unet: UNetPreset,
        gamma: float,
        timestep: int,
        origin: str = "",
    ) -> None:
        self.seed, self.preset, self.unet = seed, preset, unet
        self.gamma, self.timestep = gamma, timestep
        self.schedule = stable_diffusion.SCHEDULE
        self.alpha_bar = stable_diffusion.alpha_bar(timestep, self.schedule, "the default schedule")
        self.origin = origin or f"random, seed {seed}"

    def encoder(self) -> nn.Module:
        """Draw an image encoder."""
        with self._seeded(1):
            return _perturbed(family_of(self.preset).build_encoder(self.preset))

    def decoder(self) -> ReferenceDecoder:
        """Draw a prompt encoder and mask decoder."""
        with self._seeded(2):
            return _perturbed(family_of(self.preset).build_decoder(self.preset))

    def enhancer(self) -> Enhancer:
        """Draw a U-Net, widen it by CRE, and draw its adapters and the text."""
        with self._seeded(3):
            base = _perturbed(build_unet(self.unet, channels=4))
            with torch.device("meta"):
                unet = build_unet(self.unet)
            state_dicts.assign(unet, replicate_channels(base.state_dict(), LATENT_CHANNELS))
            del base
            add_lora(unet, _random_lora(unet))
            text = torch.randn(1, TOKENS, self.unet.text_dim)
        enhancer = Enhancer(unet, text, self.gamma, self.timestep, self.alpha_bar)
        return enhancer.eval().requires_grad_(False)

    def sources(self) -> tuple[Source, ...]:
        """Return nothing: no file was read."""
        return ()

    @contextmanager
    def _seeded(self, part: int) -> Iterator[None]:
        """Seed torch's generator for one part, and restore it afterwards."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * self.seed + part)
            yield


def _perturbed(module: ModuleT) -> ModuleT:
    """Move parameters away from their initial zero or one, in place; freeze and set eval mode."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim <= 1 or "pos_embed" in name or "rel_pos" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module.eval().requires_grad_(False)


def _random_lora(unet: nn.Module) -> dict[str, LoraFactors]:
    """Draw adapters for every layer that the released code adapts, a tenth as large as weights."""
    factors: dict[str, LoraFactors] = {}
    for name, layer in unet.named_modules():
        if not any(name == ending or name.endswith("." + ending) for ending in LORA_TARGETS):
            continue
        weight: Tensor = layer.weight
        fan_in = weight[0].numel()
        a = torch.randn(RANK, *weight.shape[1:]) * fan_in**-0.5
        b = torch.randn(weight.shape[0], RANK, *([1] * (weight.ndim - 2))) * 0.02
        factors[name] = (a, b, float(RANK))
    return factors
