"""Builds the enhancer as a graph for export: the folded U-Net and the last line of Eq. 4.

The layers are diffusers' own, taken from a folded UNet2DConditionModel. Only the order in which
they run is written out here, without timestep, text, adapters or branches on the batch size.
Upsampling, GEGLU and projections are rewritten in cheaper forms with the same result.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.fold import SHIFTS, ConstantCrossAttention
from glesam_export.graphs import (
    Attend,
    Graph,
    join_heads,
    scale_rows,
    split_heads,
    unflatten,
)


class Upsampling(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution, as four 2x2 convolutions before doubling.

    In a doubled image, two of the three rows under the kernel are copies of one row: an even row
    sees rows i - 1, i and i of the original, an odd row i, i and i + 1. The weights of the copies
    are added up. The four parities of rows and columns then are four 2x2 convolutions, with 4 / 9
    of the multiplications.

    Args:
        conv: the 3x3 convolution, padding 1.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        # [parity, tap, row of the 3x3 kernel]
        taps = torch.tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]).double()
        weight = torch.einsum("atu,bsv,oiuv->aboits", taps, taps, conv.weight.data.double())
        self.convs = nn.ModuleList()
        for parity in weight.to(conv.weight.dtype).flatten(0, 1):
            part = nn.Conv2d(conv.in_channels, conv.out_channels, 2, device="meta")
            part.weight, part.bias = _frozen(parity.contiguous()), conv.bias
            self.convs.append(part)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, C', 2 h, 2 w]."""
        parities = [
            conv(functional.pad(x, (1 - column, column, 1 - row, row)))
            for conv, (row, column) in zip(self.convs, product((0, 1), (0, 1)), strict=True)
        ]
        # Channels last in the split: OpenVINO recognises this order as ONNX's DepthToSpace.
        whole = unflatten(torch.cat(parities, 1), 1, 2, 2, -1).permute(0, 3, 4, 1, 5, 2)
        return whole.flatten(4, 5).flatten(2, 3)


class SelfAttention(nn.Module):
    """diffusers' self-attention. Its scale is folded into the query projection."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.heads = int(reference.heads)
        self.to_q, self.to_k, self.to_v = reference.to_q, reference.to_k, reference.to_v
        self.to_out = reference.to_out[0]
        self.attend = Attend(in_groups=True)
        scale_rows(self.to_q, reference.scale)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, L, C] to the same shape."""
        q, k, v = (split_heads(layer(x), self.heads) for layer in (self.to_q, self.to_k, self.to_v))
        out: Tensor = self.to_out(join_heads(self.attend(q, k, v)))
        return out


class CrossAttention(nn.Module):
    """Attention to the constant text: a query projection, constant keys and values."""

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
        """Map [N, L, C] to the same shape."""
        q = split_heads(self.to_q(x), self.heads)
        out: Tensor = self.to_out(join_heads(self.attend(q, self.key, self.value)))
        return out


class TransformerLayer(nn.Module):
    """Self-attention, cross-attention and GEGLU feed-forward, each after a LayerNorm."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = block.norm1, block.norm2, block.norm3
        self.self_attention = SelfAttention(block.attn1)
        self.cross_attention = CrossAttention(block.attn2)
        self.value, self.gate = halves(block.ff.net[0].proj)
        self.contract = block.ff.net[2]

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, L, C] to the same shape."""
        x = x + self.self_attention(self.norm1(x))
        x = x + self.cross_attention(self.norm2(x))
        normed = self.norm3(x)
        out: Tensor = x + self.contract(self.value(normed) * functional.gelu(self.gate(normed)))
        return out


class SpatialTransformer(nn.Module):
    """Transformer layers over the pixels of a feature map, with a residual around them."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.norm, self.proj_in, self.proj_out = (
            reference.norm,
            as_linear(reference.proj_in),
            as_linear(reference.proj_out),
        )
        self.layers = nn.ModuleList(TransformerLayer(b) for b in reference.transformer_blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, h, w] to the same shape."""
        height, width = x.shape[2:]
        tokens = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))
        for layer in self.layers:
            tokens = layer(tokens)
        return x + unflatten(self.proj_out(tokens).transpose(1, 2), 2, height, width)


class ResidualBlock(nn.Module):
    """diffusers' ResnetBlock2D after the timestep is folded into conv1's bias.

    With several timesteps, conv1 has no bias, and `shifts` holds its bias at each of them.
    """

    shifts: Tensor

    def __init__(self, reference: Any) -> None:
        super().__init__()
        if hasattr(reference, SHIFTS):
            self.register_buffer(SHIFTS, reference.shifts)
        self.norm1, self.conv1 = reference.norm1, reference.conv1
        self.norm2, self.conv2 = reference.norm2, reference.conv2
        self.shortcut = reference.conv_shortcut or nn.Identity()

    def forward(self, x: Tensor, *level: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, C', h, w]; `level` is the index [N] of each image's timestep."""
        h = self.conv1(functional.silu(self.norm1(x)))
        if level:
            h = h + self.shifts.index_select(0, *level).unsqueeze(-1).unsqueeze(-1)
        h = self.conv2(functional.silu(self.norm2(h)))
        out: Tensor = self.shortcut(x) + h
        return out


class Steps(nn.Sequential):
    """Layers that run one after another. The residual blocks among them get the level too."""

    def forward(self, x: Tensor, *level: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, C', h, w]."""
        for layer in self:
            inner = getattr(layer, "module", layer)  # an island of `precision` holds a layer
            x = layer(x, *level) if isinstance(inner, ResidualBlock) else layer(x)
        return x


class DownLevel(nn.Module):
    """One resolution on the way down. It returns every intermediate result for the way up."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.steps = _steps(reference)
        self.down = reference.downsamplers[0].conv if reference.downsamplers else None

    def forward(self, x: Tensor, *level: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map [N, C, h, w] to [N, C', h / 2, w / 2] and the skips; the lowest level keeps h, w."""
        skips = []
        for step in self.steps:
            x = step(x, *level)
            skips.append(x)
        if self.down is not None:
            x = self.down(x)
            skips.append(x)
        return x, skips


class UpLevel(nn.Module):
    """One resolution on the way up. It consumes the skips of its resolution, the last first."""

    def __init__(self, reference: Any) -> None:
        super().__init__()
        self.steps = _steps(reference)
        self.up = Upsampling(reference.upsamplers[0].conv) if reference.upsamplers else None

    def forward(self, x: Tensor, skips: list[Tensor], *level: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, C', 2 h, 2 w]; the topmost level keeps h, w."""
        for step, skip in zip(self.steps, reversed(skips), strict=True):
            x = step(torch.cat([x, skip], dim=1), *level)
        if self.up is not None:
            x = self.up(x)
        return x


class EnhancerGraph(Graph):
    """Maps `image_embeddings` z_L to `enhanced_embeddings` z_H, both [N, 256, s, s] float32.

    The last addition is float32 in every precision: at T = 999 it cancels terms that are 14.6 times
    as large as the result.

    Args:
        folded: what `fold.fold` returns. It is used up: its layers are taken over.
        alpha_bar: abar_T.
    """

    def __init__(self, folded: UNet2DConditionModel, alpha_bar: float) -> None:
        super().__init__()
        self.conv_in = folded.conv_in
        self.downs = nn.ModuleList(DownLevel(level) for level in folded.down_blocks)
        middle = folded.mid_block
        pairs = zip(middle.attentions, middle.resnets[1:], strict=True)
        self.middle = Steps(
            ResidualBlock(middle.resnets[0]),
            *(layer for a, r in pairs for layer in (SpatialTransformer(a), ResidualBlock(r))),
        )
        self.ups = nn.ModuleList(UpLevel(level) for level in folded.up_blocks)
        self.skips_taken = [len(level.resnets) for level in folded.up_blocks]
        self.norm_out, self.conv_out = folded.conv_norm_out, folded.conv_out
        self.latent_scale = alpha_bar**-0.5

    def forward(self, image_embeddings: Tensor) -> Tensor:
        """Compute z_L / sqrt(abar_T) - k eps. The folded U-Net returns the second term."""
        correction = self.correction(image_embeddings)
        z_h: Tensor = image_embeddings * self.latent_scale + correction.float()
        return z_h

    def correction(self, image_embeddings: Tensor, *level: Tensor) -> Tensor:
        """Compute -k eps(gamma z_L; T, c), [N, 256, s, s].

        With several timesteps, `level` [N] says which of them each image gets, and the result is
        eps itself.
        """
        x = self.conv_in(image_embeddings.to(self.dtype))
        skips = [x]
        for down in self.downs:
            x, kept = down(x, *level)
            skips += kept
        x = self.middle(x, *level)
        for up, count in zip(self.ups, self.skips_taken, strict=True):
            x = up(x, skips[-count:], *level)
            del skips[-count:]
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


def _steps(reference: Any) -> nn.ModuleList:
    """Return a level's residual blocks, each with the attention that follows it, if any."""
    blocks = [ResidualBlock(block) for block in reference.resnets]
    if not getattr(reference, "attentions", None):
        return nn.ModuleList(blocks)
    attentions = [SpatialTransformer(attention) for attention in reference.attentions]
    pairs = zip(blocks, attentions, strict=True)
    return nn.ModuleList(Steps(block, attention) for block, attention in pairs)


def as_linear(layer: Any) -> nn.Linear:
    """Return a projection as a Linear. SD 1.5 has 1x1 convolutions instead, SD 2.1 Linear."""
    if isinstance(layer, nn.Linear):
        return layer
    return _linear(layer.weight.data.flatten(1), layer.bias.data)


def halves(layer: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """Split a Linear into two with half the outputs each. Splitting its output would copy it."""
    weights, biases = layer.weight.data.chunk(2), layer.bias.data.chunk(2)
    first, second = (_linear(*half) for half in zip(weights, biases, strict=True))
    return first, second


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = _frozen(weight), _frozen(bias)
    return linear


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
