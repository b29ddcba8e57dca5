"""Folds every constant of the enhancer into its weights, exactly.

Each function folds one thing into a U-Net of `enhancer.reference`, in place. It computes in float64
and casts back to the weights' own dtype once. `fold` runs them in order. The result needs no
timestep, text or adapters; `enhancer.graph` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from glesam_export.enhancer.reference import Enhancer

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class ConstantCrossAttention(nn.Module):
    """Cross-attention with constant keys and values. It replaces `attn2`.

    Args:
        to_q: query projection.
        to_out: output projection.
        key: [1, heads, 77, d].
        value: [1, heads, 77, d].
        scale: factor on the scores, 1 / sqrt(d).
    """

    key: Tensor
    value: Tensor

    def __init__(
        self, to_q: nn.Linear, to_out: nn.Linear, key: Tensor, value: Tensor, scale: float
    ) -> None:
        super().__init__()
        self.to_q, self.to_out = to_q, to_out
        self.register_buffer("key", key)
        self.register_buffer("value", value)
        self.scale = scale

    @property
    def heads(self) -> int:
        """Return the number of heads."""
        return self.key.shape[1]


SHIFTS = "shifts"
"""Name of the buffer [levels, C'] that `fold_levels` gives to every ResNet block."""


def fold(enhancer: Enhancer) -> UNet2DConditionModel:
    """Fold LoRA, gamma, abar_T, the timestep and the text into the U-Net.

    Args:
        enhancer: the reference. It is used up: its U-Net is changed in place, so that memory
            holds no second copy of a large model. Build another one to compare with.

    Returns:
        The U-Net. `enhancer.graph.EnhancerGraph` evaluates it without timestep and text:
        z_H = z_L / sqrt(abar_T) + unet(z_L).
    """
    unet = enhancer.unet
    merge_lora(unet)
    fold_text(unet, enhancer.text)
    fold_timestep(unet, enhancer.timestep)
    fold_gamma(unet, enhancer.gamma)
    fold_alpha_bar(unet, enhancer.gamma, enhancer.alpha_bar)
    return unet


def fold_levels(enhancer: Enhancer, timesteps: Sequence[int]) -> UNet2DConditionModel:
    """Fold LoRA, gamma and the text into the U-Net, and the constants of several timesteps.

    Args:
        enhancer: the reference. It is used up, as by `fold`.
        timesteps: the timesteps, in the order of the levels.

    Returns:
        The U-Net. `enhancer.levels.LeveledEnhancerGraph` evaluates it: it returns eps, because the
        factors of Eq. 4 differ between timesteps.
    """
    unet = enhancer.unet
    merge_lora(unet)
    fold_text(unet, enhancer.text)
    fold_timesteps(unet, timesteps)
    fold_gamma(unet, enhancer.gamma)
    return unet


@torch.no_grad()
def merge_lora(module: nn.Module) -> None:
    """Replace every peft-adapted Linear and Conv2d by one layer: W + (alpha / r) B A.

    In a convolution A is [r, in, kh, kw], B is [out, r, 1, 1], and B A contracts over r.
    """
    for name, layer in list(module.named_modules()):
        if not isinstance(layer, LoraLayer):
            continue
        base = layer.get_base_layer()
        weight = base.weight.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
        rows = weight.view(len(weight), -1)
        for adapter in layer.active_adapters:
            a, b = (part[adapter].weight.double() for part in (layer.lora_A, layer.lora_B))
            # In place: float64 copies of layers would take most of the time.
            rows.addmm_(b.flatten(1), a.flatten(1), alpha=layer.scaling[adapter])
        base.weight = nn.Parameter(weight.to(base.weight.dtype), requires_grad=False)
        module.set_submodule(name, base)


@torch.no_grad()
def fold_gamma(unet: UNet2DConditionModel, gamma: float) -> None:
    """Scale `conv_in`'s weight by gamma, since the U-Net sees gamma * z_L. The bias stays."""
    conv = unet.conv_in
    conv.weight = _parameter(gamma * conv.weight.double(), conv.weight)


@torch.no_grad()
def fold_alpha_bar(unet: UNet2DConditionModel, gamma: float, alpha_bar: float) -> None:
    """Scale `conv_out` by -k of Eq. 4, with k = sqrt(1 - abar_T) / (gamma sqrt(abar_T))."""
    k = (1 - alpha_bar) ** 0.5 / (gamma * alpha_bar**0.5)
    conv = unet.conv_out
    conv.weight = _parameter(-k * conv.weight.double(), conv.weight)
    conv.bias = _parameter(-k * conv.bias.double(), conv.bias)


@torch.no_grad()
def fold_timestep(unet: UNet2DConditionModel, timestep: int) -> None:
    """Add time_emb_proj(silu(t_emb)) of every ResNet block to its conv1 bias, since T is constant.

    diffusers computes the sinusoidal embedding, in the weights' dtype. All that follows is float64.
    The layers of the time embedding are removed from the U-Net.
    """
    for block, biases in _biases_at(unet, [timestep]):
        block.conv1.bias = _parameter(biases[0], block.conv1.bias)


@torch.no_grad()
def fold_timesteps(unet: UNet2DConditionModel, timesteps: Sequence[int]) -> None:
    """Do what `fold_timestep` does for several timesteps.

    Every ResNet block gets the buffer `SHIFTS` [levels, C'] with the bias of conv1 at each
    timestep, and conv1 loses its bias.
    """
    for block, biases in _biases_at(unet, timesteps):
        block.register_buffer(SHIFTS, biases.to(block.conv1.bias.dtype))
        block.conv1.bias = None


def _biases_at(
    unet: UNet2DConditionModel, timesteps: Sequence[int]
) -> Iterator[tuple[Any, Tensor]]:
    """Yield every ResNet block with its conv1's bias at each timestep, [levels, C'] in float64.

    The layers of the time embedding are removed from the U-Net.
    """
    like = unet.conv_in.weight.new_empty(len(timesteps))
    sinusoid = unet.get_time_embed(sample=like, timestep=torch.tensor(timesteps))
    embedding = _in_float64(unet.time_embedding, sinusoid)
    for block in _submodules(unet, ResnetBlock2D):
        shifts = _in_float64(block.time_emb_proj, block.nonlinearity(embedding))
        block.time_emb_proj = None
        yield block, block.conv1.bias.double() + shifts
    unet.time_embedding = None


@torch.no_grad()
def fold_text(unet: UNet2DConditionModel, text: Tensor) -> None:
    """Replace keys and values of every cross-attention by constants, since c is constant.

    Args:
        unet: with merged adapters.
        text: [1, 77, D].
    """
    for block in _submodules(unet, BasicTransformerBlock):
        attention = block.attn2
        dtype = attention.to_q.weight.dtype
        key, value = (
            _in_float64(layer, text)
            .to(dtype)
            .view(1, text.shape[1], attention.heads, -1)
            .transpose(1, 2)
            for layer in (attention.to_k, attention.to_v)
        )
        block.attn2 = ConstantCrossAttention(
            attention.to_q, attention.to_out[0], key, value, attention.scale
        )


def _submodules(module: nn.Module, kind: type[ModuleT]) -> list[ModuleT]:
    """List the submodules of a class, before any of them is replaced."""
    return [child for child in module.modules() if isinstance(child, kind)]


def _in_float64(layer: nn.Module, x: Tensor) -> Tensor:
    """Compute `layer(x)` with weights and input in float64. The layer does not change."""
    state = {name: tensor.double() for name, tensor in layer.state_dict().items()}
    result: Tensor = torch.func.functional_call(layer, state, (x.double(),))
    return result


def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
    """Return `value` as a frozen parameter with the dtype of `like`."""
    return nn.Parameter(value.to(like.dtype), requires_grad=False)
