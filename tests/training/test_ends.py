"""Head's and tail's adapters, fitted before Algorithm 1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from glesam_export.checkpoints import lora
from glesam_export.checkpoints.write import adapters
from glesam_export.presets import LATENT_CHANNELS, unet_preset
from glesam_export.reference import Enhancer, add_lora, build_unet, replicate_channels
from glesam_training.nano.ends import fit_ends, reduced_rank
from glesam_training.train import new_adapters

ENDS = {"conv_in": 6, "conv_out": 5}


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_reduced_rank_leaves_the_least_error(rank: int) -> None:
    """Least squares leaves what it leaves, and a rank the squares of the singular values beyond it.

    Both by numpy's lstsq and svd of the data themselves, not of their moments.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 12)) @ (np.eye(12) + 0.2 * rng.standard_normal((12, 12)))
    y = x @ rng.standard_normal((12, 8)) + rng.standard_normal((4000, 8))
    fitted = x @ np.linalg.lstsq(x, y)[0]
    singular = np.linalg.svd(fitted, compute_uv=False)
    least = ((y - fitted) ** 2).sum() + (singular[rank:] ** 2).sum()

    moments = torch.from_numpy(x.T @ x / 4000), torch.from_numpy(x.T @ y / 4000)
    v, w, squares = reduced_rank(*moments, rank)
    assert v.shape == (12, rank)
    assert w.shape == (8, rank)
    left = ((y - x @ v.numpy() @ w.numpy().T) ** 2).sum()
    assert least * (1 - 1e-9) <= left <= least * 1.001  # the ridge costs a little
    np.testing.assert_allclose(squares, ((x @ v.numpy()) ** 2).mean(0), rtol=2e-2)
    assert (np.diff(squares) <= 0).all()


def _enhancer() -> Enhancer:
    """Nano's, of random weights, with new adapters."""
    torch.manual_seed(0)
    preset = unet_preset("nano")
    unet = build_unet(preset)
    unet.load_state_dict(replicate_channels(build_unet(preset, 4).state_dict(), LATENT_CHANNELS))
    add_lora(unet, lora.parse(new_adapters(preset, 2, 0, ENDS), unet, "new"))
    text = torch.randn(1, 77, preset.config["cross_attention_dim"])
    return Enhancer(unet, text, 0.5, 1, 0.998).eval()


def _world(seed: int) -> Tensor:
    """Latents [8, 256, 16, 16], of smooth pictures that fill few of the channels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(8, 12, 6, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, 16, mode="bicubic")
    mixed = torch.randn(256, 12, generator=torch.Generator().manual_seed(1))
    return torch.einsum("oc,nchw->nohw", mixed, fine)


def _lost(latents: Tensor) -> Tensor:
    """Latents with a tenth of everything gone, and most of two directions."""
    directions = torch.linalg.qr(torch.randn(256, 2, generator=torch.Generator().manual_seed(2))).Q
    gone = torch.einsum("oc,pc,nphw->nohw", directions, directions, latents)
    return 0.9 * latents - 0.7 * gone


def _pairs() -> Iterator[tuple[Tensor, Tensor]]:
    for seed in range(3):
        clear = _world(seed + 10)
        yield _lost(clear), clear


def test_fitted_ends_bring_latents_nearer_than_they_were() -> None:
    """On latents they were not fitted to; new adapters alone leave them where they are."""
    clear = _world(99)
    low = _lost(clear)
    before = float((low - clear).square().mean())
    enhancer = _enhancer()
    factors = adapters(enhancer.unet)
    untouched = {name: (a.clone(), b.clone()) for name, (a, b, _) in factors.items()}
    with torch.no_grad():
        assert float((enhancer(low) - clear).square().mean()) > 0.9 * before
        fit_ends(enhancer, _pairs, 0)
        assert float((enhancer(low) - clear).square().mean()) < 0.5 * before
    for name, (a, b, alpha) in adapters(enhancer.unet).items():
        if name in ENDS:
            assert a.shape[0] == alpha == ENDS[name]
            # One learning rate suits both factors.
            torch.testing.assert_close(a.flatten(1).norm(dim=1), b.flatten(1).norm(dim=0))
        else:
            assert torch.equal(a, untouched[name][0])
            assert not b.any()


def test_fitted_ends_follow_from_pairs_and_seed() -> None:
    fitted = []
    for seed in (0, 0, 1):
        enhancer = _enhancer()
        fit_ends(enhancer, _pairs, seed)
        fitted.append(adapters(enhancer.unet)["conv_in"][1])
    assert torch.equal(fitted[0], fitted[1])
    assert not torch.allclose(fitted[0], fitted[2])
