"""The enhancer, written for export: the folded U-Net and GLE's last line, z_L in, z_H out.

The layers are diffusers' own, taken out of a folded UNet2DConditionModel; only the way through
them is spelled out here, free of timestep, text, adapters and branches on the batch size.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.fold import ConstantCrossAttention
from glesam_export.graphs.attention import (
    Attend,
    join_heads,
    scale_rows,
    split_heads,
    unflatten,
)
from glesam_export.graphs.base import Graph
from glesam_export.graphs.unet_layers import Upsampling, as_linear, halves


class SelfAttention(nn.Module):
    """diffusers' self-attention, its scale folded into the query projection."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.heads = int(reference.heads)
        self.to_q, self.to_k, self.to_v = reference.to_q, reference.to_k, reference.to_v
        self.to_out = reference.to_out[0]
        self.attend = Attend(in_groups=True)
        scale_rows(self.to_q, reference.scale)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, C] -> [N, L, C]."""
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.to_q, self.to_k, self.to_v))
        out: Tensor = self.to_out(join_heads(self.attend(q, k, v)))
        return out


class CrossAttention(nn.Module):
    """Attention to the constant text: one query projection, constant keys and values."""

    key: Tensor
    value: Tensor

    def __init__(self, folded: ConstantCrossAttention) -> None:
        super().__init__()
        self.heads = folded.heads
        self.to_q, self.to_out = folded.to_q, folded.to_out
        self.register_buffer("key", folded.key)
        self.register_buffer("value", folded.value)
        self.attend = Attend()
        scale_rows(self.to_q, folded.scale)

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, C] -> [N, L, C]."""
        q = split_heads(self.to_q(x), self.heads)
        out: Tensor = self.to_out(join_heads(self.attend(q, self.key, self.value)))
        return out


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention and GEGLU feed-forward, each behind a LayerNorm."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.self_attention = SelfAttention(block.attn1)
        self.cross_attention = CrossAttention(block.attn2)
        self.value, self.gate = halves(block.ff.net[0].proj)
        self.contract = block.ff.net[2]

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, C] -> [N, L, C]."""
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x))
        normed = self.norm3(x)
        out: Tensor = x + self.contract(self.value(normed) * functional.gelu(self.gate(normed)))
        return out


class SpatialTransformer(nn.Module):
    """Transformer layers over the pixels of a feature map, with its own residual."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = (
            reference.norm,
            as_linear(reference.proj_in),
            as_linear(reference.proj_out),
        )
        self.layers = nn.ModuleList(TransformerLayer(b) for b in reference.transformer_blocks)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, C, h, w]."""
        height, width = x.shape[2:]
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for layer in self.layers:
            tokens = layer(tokens)
        return x + unflatten(self.proj_out(tokens).transpose(1, 2), 2, height, width)


class ResidualBlock(nn.Module):
    """diffusers' ResnetBlock2D once the timestep is in conv1's bias."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.norm1, self.conv1 = reference.norm1, reference.conv1
        self.norm2, self.conv2 = reference.norm2, reference.conv2
        self.shortcut = reference.conv_shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, h, w] -> [N, C', h, w]."""
        h = self.conv1(functional.silu(self.norm1(x)))
        h = self.conv2(functional.silu(self.norm2(h)))
        out: Tensor = self.shortcut(x) + h
        return out


class DownLevel(nn.Module):
    """One resolution on the way down; every intermediate result is kept for the way up."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.steps = _steps(reference)
        self.down = reference.downsamplers[0].conv if reference.downsamplers else None

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[N, C, h, w] -> [N, C', h / 2, w / 2] (the lowest keeps h, w), and the skips."""
        skips = []
        for step in self.steps:
            x = step(x)
            skips.append(x)
        if self.down is not None:
            x = self.down(x)
            skips.append(x)
        return x, skips


class UpLevel(nn.Module):
    """One resolution on the way up; takes the skips of its resolution, the last one first."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.steps = _steps(reference)
        self.up = Upsampling(reference.upsamplers[0].conv) if reference.upsamplers else None

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """[N, C, h, w] -> [N, C', 2 h, 2 w] (the topmost keeps h, w)."""
        for step, skip in zip(self.steps, reversed(skips), strict=True):
            x = step(torch.cat([x, skip], dim=1))
        if self.up is not None:
            x = self.up(x)
        return x


class EnhancerGraph(Graph):
    """`image_embeddings` z_L -> `enhanced_embeddings` z_H, [N, 256, s, s], float32 at both ends.

    The last add is float32 in every precision: at T = 999 it cancels terms 14.6 times the result.

    Args:
        folded: what `fold.fold` returns; used up, its layers are taken over.
        alpha_bar: abar_T.
    """

    def __init__(self, folded: UNet2DConditionModel, alpha_bar: float) -> None:
        super().__init__()
        self.conv_in = folded.conv_in
        self.downs = nn.ModuleList(DownLevel(level) for level in folded.down_blocks)
        middle = folded.mid_block
        pairs = zip(middle.attentions, middle.resnets[1:], strict=True)
        self.middle = nn.Sequential(
            ResidualBlock(middle.resnets[0]),
            *(layer for a, r in pairs for layer in (SpatialTransformer(a), ResidualBlock(r))),
        )
        self.ups = nn.ModuleList(UpLevel(level) for level in folded.up_blocks)
        self.skips_taken = [len(level.resnets) for level in folded.up_blocks]
        self.norm_out, self.conv_out = folded.conv_norm_out, folded.conv_out
        self.latent_scale = alpha_bar**-0.5

    def forward(self, image_embeddings: Tensor) -> Tensor:
        """GLE: z_L / sqrt(abar_T) - k eps, the second term being what the folded U-Net returns."""
        correction = self.correction(image_embeddings)
        z_h: Tensor = image_embeddings * self.latent_scale + correction.float()
        return z_h

    def correction(self, image_embeddings: Tensor) -> Tensor:
        """-k eps(gamma z_L; T, c), [N, 256, s, s]."""
        x = self.conv_in(image_embeddings.to(self.dtype))
        skips = [x]
        for level in self.downs:
            x, kept = level(x)
            skips += kept
        x = self.middle(x)
        for level, count in zip(self.ups, self.skips_taken, strict=True):
            x = level(x, skips[-count:])
            del skips[-count:]
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


def _steps(reference: Any) -> nn.ModuleList:
    """A level's residual blocks, each with the attention that follows it, if any does."""
    blocks = [ResidualBlock(block) for block in reference.resnets]
    if not getattr(reference, "attentions", None):
        return nn.ModuleList(blocks)
    attentions = [SpatialTransformer(attention) for attention in reference.attentions]
    pairs = zip(blocks, attentions, strict=True)
    return nn.ModuleList(nn.Sequential(block, attention) for block, attention in pairs)
