"""The reference equals an independent implementation of the paper's formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glesam_export.checkpoints import stable_diffusion
from glesam_export.enhancer.reference import build_unet
from glesam_export.families.sam.presets import SAM_PRESETS
from glesam_export.families.sam.reference import build_encoder, build_sam
from glesam_export.presets import UNET_PRESETS

from .conftest import random_nano


def abar(timestep: int) -> float:
    """Compute abar_T with numpy in float64: scaled-linear betas 0.00085 to 0.012, 1000 steps."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return float(np.cumprod(1 - betas)[timestep])


@pytest.mark.parametrize("timestep", [0, 1, 500, 999])
def test_alpha_bar_is_the_schedules(timestep: int) -> None:
    found = stable_diffusion.alpha_bar(timestep, stable_diffusion.SCHEDULE, "test")
    assert found == pytest.approx(abar(timestep), rel=1e-5)


@torch.no_grad()
def test_step_is_equation_4() -> None:
    enhancer = random_nano(gamma=3.0, timestep=500).enhancer()
    rng = np.random.default_rng(0)
    z_l, eps = rng.normal(size=(2, 1, 256, 4, 4))
    a = enhancer.alpha_bar
    expected = (3.0 * z_l - np.sqrt(1 - a) * eps) / (3.0 * np.sqrt(a))
    found = enhancer.step(torch.from_numpy(z_l), torch.from_numpy(eps))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@torch.no_grad()
def test_unet_sees_gamma_times_the_latent() -> None:
    enhancer = random_nano(gamma=3.0, timestep=1).enhancer()
    z_l = torch.randn(1, 256, 16, 16)
    seen = []
    enhancer.unet.conv_in.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    enhancer(z_l)
    torch.testing.assert_close(seen[0], 3.0 * z_l)


def test_random_parts_are_the_same_on_every_call() -> None:
    checkpoint = random_nano()
    for build in (checkpoint.encoder, checkpoint.enhancer, checkpoint.decoder):
        first, second = build().state_dict(), build().state_dict()
        assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    other = random_nano(seed=1).encoder().state_dict()
    assert not torch.equal(other["pos_embed"], checkpoint.encoder().state_dict()["pos_embed"])


@pytest.mark.parametrize("name", [n for n in SAM_PRESETS if n != "nano"])
def test_sam_presets_are_segment_anythings(name: str) -> None:
    """Compare names and shapes of the parameters with those of segment_anything's builders."""
    from segment_anything.build_sam import sam_model_registry

    preset = SAM_PRESETS[name]
    with torch.device("meta"):
        theirs = sam_model_registry[name.removeprefix("sam_")]()
        from glesam_export.families.sam.reference import build_mask_decoder, build_prompt_encoder

        ours = build_sam(
            build_encoder(preset), build_prompt_encoder(preset), build_mask_decoder(preset)
        )
    shapes = [{k: tuple(v.shape) for k, v in sam.state_dict().items()} for sam in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(("name", "millions"), [("sd15", 859.5), ("sd21", 865.9)])
def test_unet_presets_have_stable_diffusions_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        unet = build_unet(UNET_PRESETS[name], channels=4)
    assert sum(p.numel() for p in unet.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)
