from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss

from glesam_training.objectives import (
    balanced_bce_loss,
    coverage,
    dice_loss,
    focal_loss,
    latent_mse,
    mask_loss,
    soft_iou,
)

SEEDS = st.integers(0, 2**31 - 1)


def drawn(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits, and a mask of zeros and ones."""
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(*shape, generator=generator, dtype=torch.float64)
    return logits, (torch.rand(*shape, generator=generator) < 0.3).double()


@given(SEEDS)
def test_focal_loss_is_torchvisions(seed: int) -> None:
    logits, target = drawn(seed, 3, 8, 8)
    theirs = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2).mean((-2, -1))
    torch.testing.assert_close(focal_loss(logits, target), theirs)


@pytest.mark.parametrize(("alpha", "odds"), [(0.25, 3), (0.5, 1)])
def test_alpha_decides_how_likely_a_pixel_must_be(alpha: float, odds: float) -> None:
    """If masks disagree about a pixel, its best logit is 0 at odds of (1 - alpha) / alpha."""
    share = odds / (1 + odds)
    logit = torch.zeros(2, 1, 1, dtype=torch.float64, requires_grad=True)
    inside, outside = focal_loss(logit, torch.tensor([[[1.0]], [[0.0]]]).double(), alpha=alpha)
    (share * inside + (1 - share) * outside).backward()
    assert logit.grad is not None
    assert float(logit.grad.sum()) == pytest.approx(0, abs=1e-12)


@given(SEEDS)
def test_the_mask_loss_is_one_of_dice_to_twenty_of_focal(seed: int) -> None:
    logits, target = drawn(seed, 3, 8, 8)
    theirs = sigmoid_focal_loss(logits, target, alpha=0.5, gamma=2).mean((-2, -1))
    expected = dice_loss(logits, target) + 20 * theirs
    torch.testing.assert_close(mask_loss(logits, target, alpha=0.5), expected)


@given(SEEDS)
def test_dice_loss_is_the_formula(seed: int) -> None:
    logits, target = drawn(seed, 2, 5, 7)
    p, t = 1 / (1 + np.exp(-logits.numpy())), target.numpy()
    ours = dice_loss(logits, target).numpy()
    for k in range(2):
        expected = 1 - (2 * (p[k] * t[k]).sum() + 1) / (p[k].sum() + t[k].sum() + 1)
        assert ours[k] == pytest.approx(expected, rel=1e-12)


def test_a_perfect_mask_costs_nothing() -> None:
    target = torch.zeros(1, 16, 16)
    target[0, 3:9, 4:12] = 1
    right, wrong = 40 * (2 * target - 1), -40 * (2 * target - 1)
    for loss in (dice_loss, focal_loss, balanced_bce_loss, mask_loss):
        assert float(loss(right, target)) < 1e-3
        assert float(loss(wrong, target)) > 0.5


def test_balanced_cross_entropy_weighs_both_sides_alike() -> None:
    target = torch.zeros(1, 10, 10)
    target[0, :2, :5] = 1  # a tenth
    zero = torch.zeros(1, 10, 10)
    inside = float(balanced_bce_loss(zero - 3 * target, target) - balanced_bce_loss(zero, target))
    outside = float(
        balanced_bce_loss(zero + 3 * (1 - target), target) - balanced_bce_loss(zero, target)
    )
    assert inside == pytest.approx(outside, rel=1e-5)


@given(SEEDS, st.sampled_from([1, 2, 4]))
def test_coverage_is_the_share_of_each_cell(seed: int, factor: int) -> None:
    masks = np.random.default_rng(seed).uniform(size=(2, 8 * factor, 8 * factor)) < 0.5
    expected = masks.reshape(2, 8, factor, 8, factor).mean((2, 4))
    np.testing.assert_allclose(coverage(torch.from_numpy(masks), 8).numpy(), expected, rtol=1e-6)


def test_soft_iou_counts() -> None:
    target = torch.zeros(2, 4, 4)
    target[0, :2] = 1
    logits = torch.full((2, 4, 4), -1.0)
    logits[0, 1:3] = 1
    assert soft_iou(logits, target).tolist() == [pytest.approx(4 / 12), 0.0]


@given(SEEDS)
def test_latent_mse_is_numpys(seed: int) -> None:
    a, b = drawn(seed, 2, 3, 4, 4)
    expected = ((a.numpy() - b.numpy()) ** 2).mean()
    assert float(latent_mse(a, b)) == pytest.approx(expected, rel=1e-12)
