"""Losses of Algorithm 1 and of nano's pre-training.

Targets are coverages: the share of a low-resolution cell that lies inside the mask, so that a
logit of zero on an edge means that the edge runs through the middle of the cell.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

FOCAL_WEIGHT = 20.0
"""Focal over Dice, 20 to 1, as SAM was trained (Segment Anything, Sec. A)."""

FOCAL_ALPHA = 0.25
"""Weight of the object's pixels, the background's having the rest (Lin et al. 2017, Sec. 4)."""


def coverage(masks: Tensor, side: int) -> Tensor:
    """Masks [..., H, W] (bool or 0..1) -> the share of each cell they cover, [..., side, side]."""
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    return functional.adaptive_avg_pool2d(flat, side).reshape(*masks.shape[:-2], side, side)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - Dice coefficient of the probabilities, [..., h, w] -> [...]; 0 where both are empty."""
    probability = logits.sigmoid()
    overlap = (probability * target).sum((-2, -1))
    total = probability.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def focal_loss(
    logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float = FOCAL_ALPHA
) -> Tensor:
    """Focal loss, mean over pixels, [..., h, w] -> [...] (Lin et al. 2017, Eq. 5).

    For a target between 0 and 1 the modulating factor is |target - p|^gamma, which is the paper's
    (1 - p_t)^gamma at 0 and 1. Its minimum calls a pixel the object's where that is
    (1 - alpha) / alpha times as likely as not: where both are alike for an alpha of 0.5 alone.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = alpha * target + (1 - alpha) * (1 - target)
    factor = (target - logits.sigmoid()).abs().pow(gamma)
    return (weight * factor * entropy).mean((-2, -1))


def balanced_bce_loss(logits: Tensor, target: Tensor, most: float = 20.0) -> Tensor:
    """Cross entropy with the object's pixels weighted up to the background's, [..., h, w] -> [...].

    Focal loss alone rests at "nothing anywhere" for hundreds of iterations from scratch; this
    leaves it at once.

    Args:
        logits: of masks.
        target: coverages.
        most: the largest weight of a pixel.
    """
    share = target.mean((-2, -1), keepdim=True)
    weight = ((1 - share) / share.clamp_min(1e-6)).clamp(1, most)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (entropy * (1 + (weight - 1) * target)).mean((-2, -1))


def mask_loss(logits: Tensor, target: Tensor, alpha: float = FOCAL_ALPHA) -> Tensor:
    """Dice + 20 Focal (paper, Sec. 3.4; weights as SAM's), [..., h, w] -> [...]."""
    return dice_loss(logits, target) + FOCAL_WEIGHT * focal_loss(logits, target, alpha=alpha)


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of the thresholded logits with the thresholded coverage, [..., h, w] -> [...]."""
    found, wanted = logits > 0, target > 0.5
    union = (found | wanted).sum((-2, -1))
    return (found & wanted).sum((-2, -1)) / union.clamp_min(1)


def latent_mse(enhanced: Tensor, clear: Tensor) -> Tensor:
    """Mean squared error of z_H against the clear image's latent (paper, Algorithm 1): a scalar."""
    return functional.mse_loss(enhanced, clear.to(enhanced.dtype))


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of per-mask losses; masks of weight 0 are padding."""
    if weights is None:
        return values.mean()
    return (values * weights).sum() / weights.sum().clamp_min(torch.finfo(values.dtype).eps)
