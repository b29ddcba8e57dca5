"""Layers of Stable Diffusion's U-Net in the form that costs least, exactly."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.graphs.attention import unflatten


class Upsampling(nn.Module):
    """Nearest-neighbour doubling and a 3x3 convolution, as 2x2 convolutions of what is doubled.

    Of the three rows that the convolution sees of a doubled image, two are one row of the image: an
    even row sees rows i - 1, i and i of it, an odd one i, i and i + 1. With those weights added up,
    the four parities of rows and columns are four 2x2 convolutions, 4 / 9 of the multiplications.

    Args:
        conv: 3x3, padding 1.
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
        """[N, C, h, w] -> [N, C', 2 h, 2 w]."""
        parities = [
            conv(functional.pad(x, (1 - column, column, 1 - row, row)))
            for conv, (row, column) in zip(self.convs, product((0, 1), (0, 1)), strict=True)
        ]
        # Channels first: in this order it is ONNX's DepthToSpace, and OpenVINO knows it as such.
        whole = unflatten(torch.cat(parities, 1), 1, 2, 2, -1).permute(0, 3, 4, 1, 5, 2)
        return whole.flatten(4, 5).flatten(2, 3)


def as_linear(layer: Any) -> nn.Linear:
    """SD 1.5 projects with 1 x 1 convolutions, SD 2.1 with Linear: on tokens they are one thing."""
    if isinstance(layer, nn.Linear):
        return layer
    return _linear(layer.weight.data.flatten(1), layer.bias.data)


def halves(layer: nn.Linear) -> tuple[nn.Linear, nn.Linear]:
    """A Linear as two of half the outputs: cutting the result in two would copy it."""
    weights, biases = layer.weight.data.chunk(2), layer.bias.data.chunk(2)
    first, second = (_linear(*half) for half in zip(weights, biases, strict=True))
    return first, second


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = _frozen(weight), _frozen(bias)
    return linear


def _frozen(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)
