"""Count the model's operations, and measure how many per second this machine can do.

Operations are counted on the reference's modules: matrix products and convolutions, one
multiplication and one addition each. Adapters count as merged, because that is the smallest number
that gives the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from glesam_benchmark.plain_export import PlainDecoder
from glesam_benchmark.pytorch_chain import set_threads
from glesam_export.enhancer.reference import build_unet
from glesam_export.families import Preset, family_of
from glesam_export.presets import UNetPreset
from glesam_runtime.interface import LATENT_CHANNELS, expected_interface
from glesam_runtime.machine import multiplies_bfloat16
from glesam_runtime.manifest import StageName

POINTS = 3
"""Number of points of the prompt, the same as in a golden file."""


@torch.no_grad()
def count_operations(preset: Preset, unet: UNetPreset) -> dict[StageName, int]:
    """Return the floating point operations of one image and one prompt, by stage."""
    family, side, latent = family_of(preset), preset.image_size, preset.latent_size
    with torch.device("meta"):  # only shapes: no weights are drawn and nothing is computed
        encoder, noise = family.build_encoder(preset), build_unet(unet)
        image = torch.empty(1, 3, side, side)
        z_l = torch.empty(1, LATENT_CHANNELS, latent, latent)
        text = torch.empty(1, 77, unet.text_dim)
    # The prompt encoder reads the values of its labels, so the decoder really computes.
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
    module.eval().requires_grad_(False)  # the counter hooks into gradients if there are any
    # The counter does not know the CPU's fused attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LEAST_RUNS, _LEAST_SECONDS = 3, 1.5


@torch.no_grad()
def matrix_rates(threads: int | None, side: int) -> dict[str, float]:
    """Return the operations per second of the fastest product of two `side` x `side` matrices.

    Returns:
        The rate by precision. bfloat16 is left out on a CPU without it, where a product takes
        minutes.
    """
    set_threads(threads)
    rates = {}
    for name, dtype in _DTYPES.items():
        if dtype == torch.bfloat16 and not multiplies_bfloat16():
            continue
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        out = torch.empty(side, side, dtype=dtype)
        torch.matmul(a, b, out=out)
        seconds: list[float] = []
        while len(seconds) < _LEAST_RUNS or sum(seconds) < _LEAST_SECONDS:
            start = time.perf_counter()
            torch.matmul(a, b, out=out)
            seconds.append(time.perf_counter() - start)
        rates[name] = 2 * side**3 / min(seconds)
    return rates
