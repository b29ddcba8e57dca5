"""SAM-nano: Segment Anything's own classes at 4 M parameters, trained from nothing on scenes.

Three of the four masks are for prompts that mean several things; the first is for those that do
not. As in SAM's training, the best of the three is taught, and the IoU head learns what each of
them reached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from glesam_evaluation.datasets import Sample
from glesam_export.families.sam.presets import SamPreset
from glesam_export.families.sam.reference import (
    Decoder,
    build_encoder,
    build_mask_decoder,
    build_prompt_encoder,
)
from glesam_runtime.image import preprocess
from glesam_training.decoding import predict_masks
from glesam_training.examples import Examples
from glesam_training.loop import Objective
from glesam_training.losses import balanced_bce_loss, dice_loss, mask_loss, soft_iou

BALANCED_SHARE = 0.3
"""Of the training, in which cross entropy stands in for the focal loss."""

FOCAL_ALPHA = 0.5
"""Both sides of an edge weigh alike, also in Algorithm 1 on this SAM: trained with the usual 0.25
from nothing, it drew masks too small, by two points of IoU."""


class ClearExamples(Examples):
    """Examples with `clear` alone: SAM-nano learns from no low version."""

    def inputs(
        self, sample: Sample, index: int, variant: int
    ) -> dict[str, npt.NDArray[np.floating[Any]]]:
        """The picture."""
        return {"clear": preprocess(sample.image, self.rules).tensor[0]}


class SamNano(nn.Module):
    """Encoder and decoder, to be trained together."""

    def __init__(self, preset: SamPreset) -> None:
        super().__init__()
        self.encoder = build_encoder(preset)
        self.decoder = Decoder(build_prompt_encoder(preset), build_mask_decoder(preset))
        # Zeros, as ViT starts with, leave every patch without a place for a long time.
        nn.init.trunc_normal_(self.encoder.pos_embed, std=0.02)


class SamObjective(Objective):
    """Mask and IoU losses of SAM-nano on clear images.

    Args:
        sam: all of it is trained.
        balanced: share of the training in which cross entropy stands in for the focal loss; a SAM
            that finds something already needs none.
    """

    def __init__(self, sam: SamNano, balanced: float = BALANCED_SHARE) -> None:
        super().__init__()
        self.sam, self.balanced = sam, balanced

    def trained(self) -> nn.Module:
        """All of it."""
        return self.sam

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Losses of a batch whose prompts are drawn."""
        embeddings = self.sam.encoder(batch["clear"])
        logits, scores = predict_masks(
            self.sam.decoder, embeddings, batch["coords"], batch["labels"]
        )
        logits, scores = logits.float(), scores.float()
        target = batch["target"].unsqueeze(2).expand_as(logits)
        if progress < self.balanced:
            each = balanced_bce_loss(logits, target) + dice_loss(logits, target)
        else:
            each = mask_loss(logits, target, FOCAL_ALPHA)
        single, several = each[..., 0].mean(), each[..., 1:].amin(-1).mean()
        reached = soft_iou(logits.detach(), target)
        score = (scores - reached).square().mean()
        return {
            "loss": single + several + score,
            "mask": single,
            "best_of_three": several,
            "score": score,
            "iou": reached[..., 0].mean(),
        }
