"""How much arithmetic a model is: counted on the reference's modules, most of them without numbers.

Matrix products and convolutions, a multiplication and an addition each. Adapters count as merged:
that is how little it takes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glesam_benchmark.plain import PlainDecoder
from glesam_export.enhancer.reference import build_unet
from glesam_export.families import Preset, family_of
from glesam_export.presets import LATENT_CHANNELS, UNetPreset
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import StageName

POINTS = 3
"""Of the prompt, as in a golden file."""


@torch.no_grad()
def count(preset: Preset, unet: UNetPreset) -> dict[StageName, int]:
    """Floating point operations of one image and one prompt, by stage."""
    family, side, latent = family_of(preset), preset.image_size, preset.latent_size
    with torch.device("meta"):  # shapes alone: no weights are drawn and nothing is computed
        encoder, noise = family.build_encoder(preset), build_unet(unet)
        image = torch.empty(1, 3, side, side)
        z_l = torch.empty(1, LATENT_CHANNELS, latent, latent)
        text = torch.empty(1, 77, unet.text_dim)
    # The prompt encoder looks at its labels: the decoder, the smallest of the three, does compute.
    decoder = PlainDecoder(family.build_decoder(preset))
    outputs = expected_interface("encoder", side, 1, family.contract)[1]
    features = {spec.name: torch.zeros([int(axis) for axis in spec.shape]) for spec in outputs}
    points, labels = torch.zeros(1, POINTS, 2), torch.ones(1, POINTS)
    return {
        "encoder": _count(encoder, lambda: encoder(image)),
        "enhancer": _count(noise, lambda: noise(z_l, 0, text)),
        "decoder": _count(decoder, lambda: decoder(features, points, labels)),
    }


def _count(module: nn.Module, call: Callable[[], object]) -> int:
    module.eval().requires_grad_(False)  # the counter hooks into gradients where there are any
    # Of the CPU's fused attention the counter knows nothing.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
