"""The adapters of the U-Net's head and tail, fitted before Algorithm 1."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from glesam_export.checkpoints import lora
from glesam_export.checkpoints.write import adapters
from glesam_export.enhancer.reference import Enhancer, add_lora, build_unet, replicate_channels
from glesam_export.presets import unet_preset
from glesam_runtime.interface import LATENT_CHANNELS
from glesam_training.nano.starting_point import LEAD, fit_ends, reduced_rank
from glesam_training.train import new_adapters

ENDS = {"conv_in": 6, "conv_out": 5}


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_reduced_rank_leaves_the_least_error(rank: int) -> None:
    """The error is that of least squares plus the squares of the singular values beyond the rank.

    Both come from numpy's lstsq and svd of the data, not of their moments.
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


def test_reduced_rank_has_nothing_to_give_where_nothing_differs() -> None:
    with pytest.raises(ValueError, match="do not differ"):
        reduced_rank(torch.eye(3), torch.zeros(3, 2), 1)
    # One of two directions predicts something: the other is finite too.
    v, w, squares = reduced_rank(torch.eye(3), torch.eye(3, 2) * torch.tensor([1.0, 0.0]), 2)
    assert torch.isfinite(v / squares.sqrt()).all()
    torch.testing.assert_close(
        v @ w.T, torch.eye(3, 2) * torch.tensor([1.0, 0.0]), atol=2e-3, rtol=0
    )


def _enhancer() -> Enhancer:
    """Return nano's enhancer, random, with new adapters; both ends have alpha twice the rank."""
    torch.manual_seed(0)
    preset = unet_preset("nano")
    unet = build_unet(preset)
    unet.load_state_dict(replicate_channels(build_unet(preset, 4).state_dict(), LATENT_CHANNELS))
    state = new_adapters(preset, 2, 0, ENDS)
    state |= {f"unet.{name}.alpha": torch.tensor(2.0 * rank) for name, rank in ENDS.items()}
    add_lora(unet, lora.parse(state, unet, "new"))
    text = torch.randn(1, 77, preset.config["cross_attention_dim"])
    return Enhancer(unet, text, 0.5, 1, 0.998).eval()


def _world(seed: int) -> Tensor:
    """Return latents [8, 256, 16, 16] of smooth pictures that fill few of the channels."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(8, 12, 6, 6, generator=generator)
    fine = torch.nn.functional.interpolate(coarse, 16, mode="bicubic")
    mixed = torch.randn(256, 12, generator=torch.Generator().manual_seed(1))
    return torch.einsum("oc,nchw->nohw", mixed, fine)


def _lost(latents: Tensor) -> Tensor:
    """Return latents with a tenth of everything removed, and most of two directions."""
    directions = torch.linalg.qr(torch.randn(256, 2, generator=torch.Generator().manual_seed(2))).Q
    gone = torch.einsum("oc,pc,nphw->nohw", directions, directions, latents)
    return 0.9 * latents - 0.7 * gone


def _pairs() -> Iterator[tuple[Tensor, Tensor]]:
    for seed in range(3):
        clear = _world(seed + 10)
        yield _lost(clear), clear


def _fitted(seed: int) -> Enhancer:
    enhancer = _enhancer()
    fit_ends(enhancer, _pairs, seed)
    return enhancer


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    """Return an enhancer whose ends are fitted with seed 0; read-only."""
    return _fitted(0)


def test_fitted_ends_bring_latents_nearer_than_they_were(enhancer: Enhancer) -> None:
    """Fitted ends help on latents they were not fitted to; new adapters alone change nothing."""
    clear = _world(99)
    low = _lost(clear)
    before = float((low - clear).square().mean())
    new = _enhancer()
    untouched = adapters(new.unet)
    with torch.no_grad():
        unfitted = float((new(low) - clear).square().mean())
        assert unfitted == pytest.approx(before, rel=0.1)
        assert float((enhancer(low) - clear).square().mean()) < 0.5 * before
    for name, (a, b, alpha) in adapters(enhancer.unet).items():
        if name in ENDS:
            assert alpha == 2 * a.shape[0] == 2 * ENDS[name]
            # The two factors suit one learning rate.
            torch.testing.assert_close(a.flatten(1).norm(dim=1), b.flatten(1).norm(dim=0))
        else:
            assert torch.equal(a, untouched[name][0])
            assert not b.any()


def test_fitted_ends_follow_from_pairs_and_seed(enhancer: Enhancer) -> None:
    fitted = []
    for each in (enhancer, _fitted(0), _fitted(1)):
        found = adapters(each.unet)
        fitted.append([factor for name in ENDS for factor in found[name][:2]])
    assert all(torch.equal(one, again) for one, again in zip(*fitted[:2], strict=True))
    differs = [not torch.equal(one, other) for one, other in zip(*fitted[::2], strict=True)]
    # The head's input factor does not depend on the seed; its output factor and the tail do.
    assert differs == [False, True, True, True]


def test_the_head_leads_and_the_tail_answers_as_least_squares_would(enhancer: Enhancer) -> None:
    """Compare with numpy, from the inputs and outputs of head and tail."""
    head, tail = enhancer.unet.conv_in, enhancer.unet.conv_out
    reached, lacked, added = [], [], []
    with torch.no_grad():
        for low, clear in _pairs():
            seen: list[Tensor] = []
            hook = tail.register_forward_pre_hook(
                lambda _, inputs, seen=seen: seen.append(inputs[0])
            )
            eps = enhancer.eps(low)
            hook.remove()
            own = tail.base_layer(seen[0])
            wanted = enhancer.gamma * low - enhancer.gamma * enhancer.alpha_bar**0.5 * clear
            wanted = wanted / (1 - enhancer.alpha_bar) ** 0.5
            columns = torch.nn.functional.unfold(seen[0], 3, padding=1).transpose(1, 2)
            reached.append(columns.flatten(0, 1).double().numpy())
            for rows, y in ((lacked, wanted - own), (added, eps - own)):
                rows.append(y.permute(0, 2, 3, 1).flatten(0, 2).double().numpy())
        scaled = enhancer.gamma * low
        base = head.base_layer(scaled)
        assert float((head(scaled) - base).std() / base.std()) == pytest.approx(LEAD, rel=0.3)
    x, y, ours = (np.concatenate(rows) for rows in (reached, lacked, added))
    best = x @ np.linalg.lstsq(x, y)[0]
    left = ((y - best) ** 2).sum() + (np.linalg.svd(best.T @ best)[1][ENDS["conv_out"] :]).sum()
    assert left * (1 - 1e-6) <= ((y - ours) ** 2).sum() <= left + 0.03 * (y**2).sum()
