"""Builds the enhancer as the paper defines it. Tests and `verify` compare the graph with it.

Nothing here is folded. LoRA stays in unmerged peft adapters, the U-Net sees gamma * z_L, the
timestep and the text embedding, and Eq. 4 is evaluated in float64.
"""

from __future__ import annotations

from collections.abc import Mapping

from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from glesam_export.presets import UNetPreset
from glesam_runtime.interface import LATENT_CHANNELS
from glesam_runtime.manifest import TimestepLevel

ADAPTER = "default"
"""peft's name for the one adapter that a GleSAM U-Net carries."""

LoraFactors = tuple[Tensor, Tensor, float]
"""A [r, in, ...], B [out, r, ...] and alpha of one adapted layer: delta W = (alpha / r) B A."""


def build_unet(preset: UNetPreset, channels: int = LATENT_CHANNELS) -> UNet2DConditionModel:
    """Build the U-Net with initial weights and `channels` input and output channels."""
    config = dict(preset.config) | {"in_channels": channels, "out_channels": channels}
    return UNet2DConditionModel(**config)


def replicate_channels(state: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Widen head and tail of a 4-channel U-Net by replicated-channel expansion (CRE).

    `conv_in.weight` [C, 4, 3, 3] is tiled along its inputs, `conv_out.weight` [4, C, 3, 3] and
    `conv_out.bias` [4] along their outputs, channel i taking base channel i mod 4; nothing is
    rescaled (paper, Sec. 3.3; the released code's `repeat(1, 64, 1, 1)`).

    Args:
        state: state dict of a U-Net whose channel count divides `channels`.
        channels: channels of the widened U-Net.

    Returns:
        A new dict; every other tensor stays the same object.
    """
    wide = dict(state)
    times = channels // state["conv_in.weight"].shape[1]
    wide["conv_in.weight"] = state["conv_in.weight"].repeat(1, times, 1, 1)
    wide["conv_out.weight"] = state["conv_out.weight"].repeat(times, 1, 1, 1)
    wide["conv_out.bias"] = state["conv_out.bias"].repeat(times)
    return wide


def add_lora(unet: nn.Module, factors: Mapping[str, LoraFactors]) -> None:
    """Add an unmerged peft adapter to every layer named in `factors`, in place.

    Args:
        unet: the widened U-Net.
        factors: by module path; their shapes must fit. The adapters take over these tensors.
    """
    ranks = {name: a.shape[0] for name, (a, _, _) in factors.items()}
    alphas = {name: alpha for name, (_, _, alpha) in factors.items()}
    config = LoraConfig(
        # peft reads a list as name endings; one anchored pattern matches only these layers.
        target_modules="^(" + "|".join(name.replace(".", r"\.") for name in factors) + ")$",
        rank_pattern={f"^{name}$": rank for name, rank in ranks.items()},
        alpha_pattern={f"^{name}$": alpha for name, alpha in alphas.items()},
        init_lora_weights=False,
    )
    inject_adapter_in_model(config, unet, adapter_name=ADAPTER)
    for name, (a, b, _) in factors.items():
        layer = unet.get_submodule(name)
        assert isinstance(layer, LoraLayer)
        layer.lora_A[ADAPTER].weight = nn.Parameter(a)
        layer.lora_B[ADAPTER].weight = nn.Parameter(b)


class Enhancer(nn.Module):
    """Enhances latents, unfolded (generative latent space enhancement; paper, Eq. 4).

    z_H = (gamma z_L - sqrt(1 - abar_T) eps(gamma z_L; T, c)) / (gamma sqrt(abar_T))

    Args:
        unet: 256-channel U-Net eps with CRE and unmerged adapters.
        text: c, [1, 77, D].
        gamma: adaption weight.
        timestep: T, index of `alphas_cumprod`.
        alpha_bar: abar_T.
    """

    text: Tensor

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text: Tensor,
        gamma: float,
        timestep: int,
        alpha_bar: float,
    ) -> None:
        super().__init__()
        self.unet = unet
        self.register_buffer("text", text)
        self.gamma, self.timestep, self.alpha_bar = gamma, timestep, alpha_bar

    def set_level(self, level: TimestepLevel) -> None:
        """Change T and abar_T."""
        self.timestep, self.alpha_bar = level.timestep, level.alpha_bar

    def eps(self, z_l: Tensor) -> Tensor:
        """Estimate the noise at gamma * z_L: [N, 256, s, s], in the weights' dtype."""
        c = self.text.expand(z_l.shape[0], -1, -1)
        predicted: Tensor = self.unet(self.gamma * z_l, self.timestep, c, return_dict=False)[0]
        return predicted

    def step(self, z_l: Tensor, eps: Tensor) -> Tensor:
        """Evaluate the last line of Eq. 4, in float64."""
        latent = self.gamma * z_l.double()
        numerator = latent - (1 - self.alpha_bar) ** 0.5 * eps.double()
        z_h: Tensor = numerator / (self.gamma * self.alpha_bar**0.5)
        return z_h

    def forward(self, z_l: Tensor) -> Tensor:
        """Enhance z_L [N, 256, s, s]: z_H of the same shape, float64."""
        return self.step(z_l, self.eps(z_l))
