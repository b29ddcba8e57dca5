"""Each part of the fold equals the unfolded model to 1e-10 in float64."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from glesam_export import fold
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.enhancer.graph import EnhancerGraph
from glesam_export.enhancer.reference import Enhancer, replicate_channels
from glesam_export.presets import UNetPreset, sam_preset, unet_preset

EXACT = 1e-10
PAIRS = [(5.0, 999), (3.0, 1), (1.0, 1)]


def relative(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def make_enhancer(gamma: float = 5.0, timestep: int = 999) -> Enhancer:
    checkpoint = RandomCheckpoint(0, sam_preset("nano"), unet_preset("nano"), gamma, timestep)
    return checkpoint.enhancer().double()


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def z_l() -> Tensor:
    return torch.randn(2, 256, 16, 16, generator=torch.Generator().manual_seed(1)).double()


def eps(enhancer: Enhancer, z_l: Tensor) -> Tensor:
    c = enhancer.text.expand(len(z_l), -1, -1)
    return enhancer.unet(enhancer.gamma * z_l, enhancer.timestep, c, return_dict=False)[0]


def lora_layers(module: nn.Module) -> list[LoraLayer]:
    return [layer for layer in module.modules() if isinstance(layer, LoraLayer)]


def test_lora_is_merged_into_linear_and_conv(z_l: Tensor) -> None:
    enhancer = make_enhancer()
    kinds = {type(layer.get_base_layer()) for layer in lora_layers(enhancer)}
    assert kinds == {nn.Linear, nn.Conv2d}
    expected = eps(enhancer, z_l)
    fold.merge_lora(enhancer.unet)
    assert not lora_layers(enhancer)
    assert relative(eps(enhancer, z_l), expected) < EXACT


@pytest.mark.parametrize("alpha", [2.0, 16.0])
def test_merge_scales_by_alpha_over_rank(alpha: float, z_l: Tensor) -> None:
    enhancer = make_enhancer()
    for layer in lora_layers(enhancer):
        layer.set_scale("default", alpha / 8)
    expected = eps(enhancer, z_l)
    fold.merge_lora(enhancer.unet)
    assert relative(eps(enhancer, z_l), expected) < EXACT


def test_replicated_channels_sum_inputs_and_copy_outputs() -> None:
    """Check that the tiled head sums inputs per base channel, and the tail repeats outputs."""
    base_in, base_out = nn.Conv2d(4, 32, 3, padding=1), nn.Conv2d(32, 4, 3, padding=1)
    state = {f"conv_in.{k}": v.double() for k, v in base_in.state_dict().items()}
    state |= {f"conv_out.{k}": v.double() for k, v in base_out.state_dict().items()}
    state["other.weight"] = torch.ones(3)
    wide = replicate_channels(state, 256)
    assert wide["other.weight"] is state["other.weight"]
    x = torch.randn(1, 256, 8, 8).double()
    summed = x.view(1, 64, 4, 8, 8).sum(dim=1)
    conv = nn.functional.conv2d
    head = conv(x, wide["conv_in.weight"], wide["conv_in.bias"], padding=1)
    assert relative(head, base_in.double()(summed)) < EXACT
    h = torch.randn(1, 32, 8, 8).double()
    tail = conv(h, wide["conv_out.weight"], wide["conv_out.bias"], padding=1)
    assert relative(tail, base_out.double()(h).repeat(1, 64, 1, 1)) < EXACT


@pytest.mark.parametrize("gamma", [1.0, 3.0, 5.0])
def test_gamma_goes_into_the_head(gamma: float, z_l: Tensor) -> None:
    enhancer = make_enhancer(gamma)
    expected = eps(enhancer, z_l)
    fold.merge_lora(enhancer.unet)
    fold.fold_gamma(enhancer.unet, gamma)
    c = enhancer.text.expand(len(z_l), -1, -1)
    assert relative(enhancer.unet(z_l, 999, c).sample, expected) < EXACT


@pytest.mark.parametrize(("gamma", "timestep"), PAIRS)
def test_alpha_bar_goes_into_the_tail(gamma: float, timestep: int, z_l: Tensor) -> None:
    """Check that z_L / sqrt(abar_T) plus the tail's new output equals Eq. 4."""
    enhancer = make_enhancer(gamma, timestep)
    expected = enhancer(z_l)
    fold.merge_lora(enhancer.unet)
    fold.fold_alpha_bar(enhancer.unet, gamma, enhancer.alpha_bar)
    z_h = z_l / enhancer.alpha_bar**0.5 + eps(enhancer, z_l)
    assert relative(z_h, expected) < EXACT


@pytest.mark.parametrize("timestep", [1, 500, 999])
def test_timestep_goes_into_every_residual_block(timestep: int) -> None:
    enhancer = make_enhancer(timestep=timestep)
    unet = enhancer.unet
    fold.merge_lora(unet)
    like = torch.zeros(1).double()
    embedding = unet.time_embedding(unet.get_time_embed(sample=like, timestep=timestep))
    inputs = {}
    for name, block in unet.named_modules():
        if isinstance(block, ResnetBlock2D):
            x = torch.randn(1, block.in_channels, 8, 8).double()
            inputs[name] = (x, block(x, embedding))
    assert len(inputs) == 8
    fold.fold_timestep(unet, timestep)
    assert unet.time_embedding is None
    for name, (x, expected) in inputs.items():
        block = unet.get_submodule(name)
        assert block.time_emb_proj is None
        assert relative(block(x, None), expected) < EXACT


def test_text_becomes_constant_keys_and_values() -> None:
    enhancer = make_enhancer()
    unet = enhancer.unet
    fold.merge_lora(unet)
    expected = {}
    for name, block in unet.named_modules():
        if isinstance(block, BasicTransformerBlock):
            x = torch.randn(1, 64, block.attn2.query_dim).double()
            expected[name] = (x, block.attn2(x, encoder_hidden_states=enhancer.text))
    assert len(expected) == 7
    fold.fold_text(unet, enhancer.text)
    for name, (x, wanted) in expected.items():
        attention = unet.get_submodule(name).attn2
        assert not any("to_k" in key or "to_v" in key for key in attention.state_dict())
        q = attention.to_q(x).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        attended = nn.functional.scaled_dot_product_attention(q, attention.key, attention.value)
        found = attention.to_out(attended.transpose(1, 2).flatten(2))
        assert relative(found, wanted) < EXACT


@pytest.mark.parametrize(("gamma", "timestep"), PAIRS)
def test_whole_fold_in_float64(gamma: float, timestep: int, z_l: Tensor) -> None:
    reference = make_enhancer(gamma, timestep)
    expected = reference.eps(z_l)
    k = (1 - reference.alpha_bar) ** 0.5 / (gamma * reference.alpha_bar**0.5)
    graph = EnhancerGraph(fold.fold(make_enhancer(gamma, timestep)), reference.alpha_bar)
    graph.dtype = torch.float64
    assert relative(graph.correction(z_l), -k * expected) < EXACT


@pytest.mark.parametrize(("gamma", "timestep"), PAIRS)
def test_folded_enhancer_in_float32(gamma: float, timestep: int, z_l: Tensor) -> None:
    reference = make_enhancer(gamma, timestep)
    graph = EnhancerGraph(fold.fold(make_enhancer(gamma, timestep).float()), reference.alpha_bar)
    assert relative(graph(z_l.float()), reference(z_l)) < 1e-5


def test_fold_leaves_no_timestep_text_or_adapter() -> None:
    graph = EnhancerGraph(fold.fold(make_enhancer().float()), 0.5)
    left = [name for name in graph.state_dict() if "time" in name or "lora" in name]
    assert left == []
    assert not any("cross_attention.to_k" in name for name in graph.state_dict())


@pytest.mark.parametrize("linear", [True, False], ids=["SD 2.1's", "SD 1.5's"])
def test_both_stable_diffusion_layouts(linear: bool, z_l: Tensor) -> None:
    """Test Linear and 1 x 1 projections, heads per level, and a level without attention."""
    nano = dict(unet_preset("nano").config)
    config = nano | {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 2,
        "attention_head_dim": (2, 4, 4) if linear else 8,
        "use_linear_projection": linear,
    }

    def build() -> Enhancer:
        preset = UNetPreset("t", config)
        checkpoint = RandomCheckpoint(0, sam_preset("nano"), preset, 5.0, 999)
        return checkpoint.enhancer().double()

    reference = build()
    k = (1 - reference.alpha_bar) ** 0.5 / (5.0 * reference.alpha_bar**0.5)
    graph = EnhancerGraph(fold.fold(build()), reference.alpha_bar)
    graph.dtype = torch.float64
    assert relative(graph.correction(z_l), -k * reference.eps(z_l)) < EXACT
