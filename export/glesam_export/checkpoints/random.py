"""A checkpoint drawn from a seed: the right shapes and no meaning, for development."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from glesam_export.checkpoints import Checkpoint, diffusion
from glesam_export.checkpoints import tensors as files
from glesam_export.checkpoints.text import TOKENS
from glesam_export.presets import LATENT_CHANNELS, LORA_TARGETS, Preset, Sam2Preset, UNetPreset
from glesam_export.reference import (
    Decoder,
    Enhancer,
    LoraFactors,
    add_lora,
    build_encoder,
    build_mask_decoder,
    build_prompt_encoder,
    build_unet,
    replicate_channels,
)
from glesam_runtime.manifest import Source

if TYPE_CHECKING:
    from glesam_export.reference_sam2 import Sam2Decoder

ModuleT = TypeVar("ModuleT", bound=nn.Module)

RANK = 8
"""Of the random adapters, as in the paper; alpha is the same."""


class RandomCheckpoint(Checkpoint):
    """Weights from a seed; every part is the same on each call.

    Nothing that a released checkpoint has away from zero is left at zero: norms, positions and the
    adapters' B are perturbed, so that a graph that dropped one of them would be found out.

    Args:
        seed: of everything.
        preset: the SAM or SAM 2.
        unet: the U-Net.
        gamma: adaption weight.
        timestep: T.
        origin: the weights in words.
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
        self.schedule = diffusion.SCHEDULE
        self.alpha_bar = diffusion.alpha_bar(timestep, self.schedule, "the default schedule")
        self.origin = origin or f"random, seed {seed}"

    def encoder(self) -> nn.Module:
        """A random image encoder."""
        with self._seeded(1):
            if isinstance(self.preset, Sam2Preset):
                from glesam_export.reference_sam2 import build_sam2_encoder

                built: nn.Module = build_sam2_encoder(self.preset)
            else:
                built = build_encoder(self.preset)
            return _perturbed(built)

    def decoder(self) -> Decoder | Sam2Decoder:
        """A random prompt encoder and mask decoder."""
        with self._seeded(2):
            if isinstance(self.preset, Sam2Preset):
                from glesam_export.reference_sam2 import build_sam2_decoder

                return _perturbed(build_sam2_decoder(self.preset))
            prompt_encoder = build_prompt_encoder(self.preset)
            return _perturbed(Decoder(prompt_encoder, build_mask_decoder(self.preset)))

    def enhancer(self) -> Enhancer:
        """A random U-Net, widened by CRE, with random adapters, and a random text."""
        with self._seeded(3):
            base = _perturbed(build_unet(self.unet, channels=4))
            with torch.device("meta"):
                unet = build_unet(self.unet)
            files.assign(unet, replicate_channels(base.state_dict(), LATENT_CHANNELS))
            del base
            add_lora(unet, _random_lora(unet))
            text = torch.randn(1, TOKENS, self.unet.text_dim)
        enhancer = Enhancer(unet, text, self.gamma, self.timestep, self.alpha_bar)
        return enhancer.eval().requires_grad_(False)

    def sources(self) -> tuple[Source, ...]:
        """None: nothing was read."""
        return ()

    @contextmanager
    def _seeded(self, part: int) -> Iterator[None]:
        """Torch's generator, seeded for one part and put back after it."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * self.seed + part)
            yield


def _perturbed(module: ModuleT) -> ModuleT:
    """Move what is initialised to zero or one away from it, in place; frozen, in eval mode."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim <= 1 or "pos_embed" in name or "rel_pos" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return module.eval().requires_grad_(False)


def _random_lora(unet: nn.Module) -> dict[str, LoraFactors]:
    """Adapters on every layer the released code adapts, about a tenth of the weights in size."""
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
