"""Compute what each stage of Algorithm 1 minimises: batched masks, losses, objectives.

`MaskDecoder.predict_masks` of SAM takes one image per call, because it repeats that image's
embedding for every prompt. `predict_masks` here takes N images with B prompts each.

Targets are coverages: the share of a low-resolution cell that lies inside the mask. So a logit of
zero on an edge means that the edge runs through the middle of the cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from glesam_export.enhancer.reference import Enhancer
from glesam_export.families import HIGH_RES, named_features
from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.prompts import BACKGROUND
from glesam_training.loop import Objective


def predict_masks(
    decoder: ReferenceDecoder, features: Mapping[str, Tensor], coords: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Predict the masks of B prompts on each of N images.

    Args:
        decoder: prompt encoder and mask decoder of any family.
        features: the embeddings [N, 256, s, s], and the high-resolution features of a family that
            has them, by the contract's names.
        coords: [N, B, P, 2], (x, y) in resized pixels.
        labels: [N, B, P] as in the contract (1, 0, box corners 2 and 3, padding -1); every prompt
            has the same kinds of tokens in the same places.

    Returns:
        Logits [N, B, 4, 4s, 4s] and predicted IoUs [N, B, 4].
    """
    count, prompts = labels.shape[:2]
    sparse, dense = decoder.embed_prompts(coords.flatten(0, 1), labels.flatten(0, 1))
    rows = {name: each.repeat_interleave(prompts, dim=0) for name, each in features.items()}
    masks, scores = decoder.predict_masks(rows, sparse, dense, repeat=False)
    return (
        masks.reshape(count, prompts, *masks.shape[1:]),
        scores.reshape(count, prompts, *scores.shape[1:]),
    )


FOCAL_WEIGHT = 20.0
"""Weight of the focal loss relative to Dice, as in SAM's training (Segment Anything, Sec. A)."""

FOCAL_ALPHA = 0.25
"""Weight of the object's pixels; the background's have the rest (Lin et al. 2017, Sec. 4)."""


@dataclass(frozen=True)
class LossWeights:
    """The weights of the mask loss.

    Attributes:
        dice: weight of Dice.
        focal: weight of the focal loss.
        background: weight of the background's pixels in the focal loss; None gives them the rest of
            alpha. The released code multiplies every pixel by its alpha of 0.25.
    """

    dice: float = 1.0
    focal: float = FOCAL_WEIGHT
    background: float | None = None

    @property
    def words(self) -> str:
        """Return the weights as `--loss-weights` takes them, with what no option sets."""
        ratio = f"{self.dice:g}:{self.focal:g}"
        if self.background is None:
            return ratio
        return f"{ratio} (background pixels {self.background:g})"


SAMS_WEIGHTS = LossWeights()


def coverage(masks: Tensor, side: int) -> Tensor:
    """Return how much masks [..., H, W] (bool or 0..1) cover of each cell, [..., side, side]."""
    flat = masks.reshape(-1, 1, *masks.shape[-2:]).float()
    return functional.adaptive_avg_pool2d(flat, side).reshape(*masks.shape[:-2], side, side)


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return 1 - Dice of the probabilities, [..., h, w] -> [...]; 0 if both are empty."""
    probability = logits.sigmoid()
    overlap = (probability * target).sum((-2, -1))
    total = probability.sum((-2, -1)) + target.sum((-2, -1))
    return 1 - (2 * overlap + 1) / (total + 1)


def focal_loss(
    logits: Tensor,
    target: Tensor,
    gamma: float = 2.0,
    alpha: float = FOCAL_ALPHA,
    background: float | None = None,
) -> Tensor:
    """Return the focal loss, mean over pixels, [..., h, w] -> [...] (Lin et al. 2017, Eq. 5).

    For a target between 0 and 1 the modulating factor is |target - p|^gamma, which equals the
    paper's (1 - p_t)^gamma at 0 and 1. At the minimum, a pixel counts as object if that is at least
    (1 - alpha) / alpha times as likely as background; only alpha 0.5 treats both alike.
    `background` replaces 1 - alpha.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    other = 1 - alpha if background is None else background
    weight = alpha * target + other * (1 - target)
    factor = (target - logits.sigmoid()).abs().pow(gamma)
    return (weight * factor * entropy).mean((-2, -1))


def balanced_bce_loss(logits: Tensor, target: Tensor, most: float = 20.0) -> Tensor:
    """Return cross entropy with the object's pixels weighted up, [..., h, w] -> [...].

    The object's pixels together weigh as much as the background's. From scratch, focal loss alone
    stays at "no object anywhere" for hundreds of iterations; this loss leaves that state at once.

    Args:
        logits: mask logits.
        target: coverages.
        most: the largest weight of a pixel.
    """
    share = target.mean((-2, -1), keepdim=True)
    weight = ((1 - share) / share.clamp_min(1e-6)).clamp(1, most)
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (entropy * (1 + (weight - 1) * target)).mean((-2, -1))


def mask_loss(
    logits: Tensor,
    target: Tensor,
    alpha: float = FOCAL_ALPHA,
    weights: LossWeights = SAMS_WEIGHTS,
) -> Tensor:
    """Return Dice + 20 Focal, or with other weights, [..., h, w] -> [...].

    The paper (Sec. 3.4) names the two losses and no weights; 1 and 20 are SAM's.
    """
    focal = focal_loss(logits, target, alpha=alpha, background=weights.background)
    return weights.dice * dice_loss(logits, target) + weights.focal * focal


def soft_iou(logits: Tensor, target: Tensor) -> Tensor:
    """Return the IoU of thresholded logits and thresholded coverage, [..., h, w] -> [...]."""
    found, wanted = logits > 0, target > 0.5
    union = (found | wanted).sum((-2, -1))
    return (found & wanted).sum((-2, -1)) / union.clamp_min(1)


def latent_mse(enhanced: Tensor, clear: Tensor) -> Tensor:
    """Return the mean squared error of z_H to the clear image's latent (Algorithm 1), a scalar."""
    return functional.mse_loss(enhanced, clear.to(enhanced.dtype))


DecoderPart = Literal["tokens", "all", "background"]
"""What stage 2 trains: the mask tokens (FT-T), all but the IoU head (FT-D), or the embedding of
background points. The last leaves prompts without a background point unchanged."""


class EnhancerObjective(Objective):
    """Stage 1: bring the enhanced latent of the degraded image close to the clear image's.

    The loss is MSE(GLE(z_L), z_H) (paper, Algorithm 1). Optionally the mask loss through the frozen
    decoder is added, which tells the enhancer which parts of the latent matter.

    Args:
        encoder: frozen; None if batches hold latents.
        enhancer: its adapters are trained.
        decoder: frozen; required for the mask loss.
        mask_weight: weight of Dice + Focal next to the MSE, which is then divided by the latent's
            variance; 0 is the paper's loss.
        alpha: alpha of the mask loss.
        weights: weights of the mask loss.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        enhancer: Enhancer,
        decoder: ReferenceDecoder | None = None,
        mask_weight: float = 0.0,
        alpha: float = FOCAL_ALPHA,
        weights: LossWeights = SAMS_WEIGHTS,
    ) -> None:
        super().__init__()
        self.encoder, self.enhancer, self.decoder = encoder, enhancer, decoder
        self.mask_weight, self.alpha, self.weights = mask_weight, alpha, weights
        for part in (encoder, decoder):
            if part is not None:
                part.requires_grad_(False)
        train_adapters(enhancer)

    def trained(self) -> nn.Module:
        """Return the U-Net, of which only the adapters are unfrozen."""
        unet: nn.Module = self.enhancer.unet
        return unet

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the MSE, the MSE without enhancement for comparison, and the mask loss."""
        low, z_clear = latents(self.encoder, batch)
        z_low = low[EMBEDDINGS]
        enhanced = self.enhancer(z_low).float()
        mse = latent_mse(enhanced, z_clear)
        losses = {"loss": mse, "mse": mse, "mse_before": latent_mse(z_low, z_clear)}
        if self.mask_weight and self.decoder is not None:
            features = low | {EMBEDDINGS: enhanced}
            logits, _ = predict_masks(self.decoder, features, batch["coords"], batch["labels"])
            single = logits[:, :, 0].float()
            masks = mask_loss(single, batch["target"], self.alpha, self.weights).mean()
            losses["loss"] = mse / z_clear.var() + self.mask_weight * masks
            losses["mask"] = masks
        return losses


class DecoderObjective(Objective):
    """Stage 2: train the decoder to read enhanced latents, by Dice + Focal (paper, Algorithm 1).

    The loss trains the first mask and the best of the three others.

    Args:
        encoder: frozen; None if batches hold latents.
        enhancer: frozen; None trains the control, a decoder on latents that are not enhanced.
        decoder: the part that `part` names is trained.
        part: the mask tokens, all but the IoU head, or the embedding of background points.
        alpha: alpha of the mask loss.
        weights: weights of the mask loss.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        enhancer: Enhancer | None,
        decoder: ReferenceDecoder,
        part: DecoderPart,
        alpha: float = FOCAL_ALPHA,
        weights: LossWeights = SAMS_WEIGHTS,
    ) -> None:
        super().__init__()
        self.encoder, self.enhancer, self.decoder = encoder, enhancer, decoder
        self.alpha, self.weights = alpha, weights
        for frozen in (encoder, enhancer, decoder):
            if frozen is not None:
                frozen.requires_grad_(False)
        if part == "tokens":
            decoder.mask_decoder.mask_tokens.requires_grad_(True)
        elif part == "background":
            decoder.prompt_encoder.point_embeddings[BACKGROUND].requires_grad_(True)
        else:
            decoder.requires_grad_(True)
            for head in decoder.score_heads:
                head.requires_grad_(False)

    def trained(self) -> nn.Module:
        """Return the decoder."""
        return self.decoder

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the mask loss and the IoU at low resolution."""
        with torch.no_grad():
            features, _ = latents(self.encoder, batch)
            if self.enhancer is not None:
                features[EMBEDDINGS] = self.enhancer(features[EMBEDDINGS]).float()
        logits, _ = predict_masks(self.decoder, features, batch["coords"], batch["labels"])
        logits = logits.float()
        target = batch["target"].unsqueeze(2).expand_as(logits)
        each = mask_loss(logits, target, self.alpha, self.weights)
        single, several = each[..., 0].mean(), each[..., 1:].amin(-1).mean()
        reached = soft_iou(logits[:, :, 0].detach(), batch["target"]).mean()
        return {"loss": single + several, "mask": single, "iou": reached}


LEARNT = (".lora_A.", ".lora_B.", ".before.", ".behind.")
"""Parts of the names of an enhancer's learnt parameters: LoRA factors, and the 1 x 1 convolutions
of an ablation without CRE."""


def train_adapters(enhancer: Enhancer) -> None:
    """Freeze everything in an enhancer except what stage 1 learns."""
    for name, parameter in enhancer.named_parameters():
        parameter.requires_grad_(any(part in name for part in LEARNT))


def latents(
    encoder: nn.Module | None, batch: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor]:
    """Return the low image's features and the clear one's latent, encoded or read from the batch.

    Returns:
        z_L [N, 256, s, s] with the family's high-resolution features, which the enhancer does not
        touch, by the contract's names; and z_H [N, 256, s, s].
    """
    if encoder is None:
        stored = {name: batch[name].float() for name in HIGH_RES if name in batch}
        return {EMBEDDINGS: batch["z_l"], **stored}, batch["z_h"]
    with torch.no_grad():
        low, clear = (named_features(encoder(batch[key])) for key in ("low", "clear"))
        return {name: each.float() for name, each in low.items()}, clear[EMBEDDINGS].float()
