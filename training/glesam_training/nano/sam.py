"""Train SAM-nano: Segment Anything's own classes at 4 M parameters, from scratch on scenes.

Three of the four masks are for ambiguous prompts, the first is for the others. As in SAM's
training, the loss takes the best of the three, and the IoU head learns what each of them reached.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from glesam_evaluation.datasets import Sample
from glesam_export.families import Preset, family_of, named_features
from glesam_runtime.image import preprocess
from glesam_training.examples import Examples
from glesam_training.loop import Objective
from glesam_training.objectives import (
    balanced_bce_loss,
    dice_loss,
    mask_loss,
    predict_masks,
    soft_iou,
)

BALANCED_SHARE = 0.3
"""Share of the training in which cross entropy replaces the focal loss."""

FOCAL_ALPHA = 0.5
"""Both sides of an edge weigh the same, also in Algorithm 1 on this SAM. Trained from scratch with
the usual 0.25, masks came out too small, by two points of IoU."""


class ClearExamples(Examples):
    """Examples with `clear` alone: SAM-nano does not train on degraded images."""

    def inputs(
        self, sample: Sample, index: int, variant: int
    ) -> dict[str, npt.NDArray[np.floating[Any]]]:
        """Return the picture."""
        return {"clear": preprocess(sample.image, self.rules).tensor[0]}


POSITIONS = ("pos_embed", "pos_embed_window")
"""Names of the position embeddings of ViT and Hiera."""


class SamNano(nn.Module):
    """Encoder and decoder, trained together."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.preset, family = preset, family_of(preset)
        self.encoder, self.decoder = family.build_encoder(preset), family.build_decoder(preset)
        # With the initial zeros, patches would have no position for a long time.
        for name, parameter in self.encoder.named_parameters():
            if name.rpartition(".")[2] in POSITIONS:
                nn.init.trunc_normal_(parameter, std=0.02)


class SamObjective(Objective):
    """Mask and IoU losses of SAM-nano on clear images.

    Args:
        sam: all of it is trained.
        balanced: share of the training in which cross entropy replaces the focal loss; a SAM that
            already finds objects does not need it.
    """

    def __init__(self, sam: SamNano, balanced: float = BALANCED_SHARE) -> None:
        super().__init__()
        self.sam, self.balanced = sam, balanced
        self.uses_progress = balanced > 0

    def trained(self) -> nn.Module:
        """Return the whole SAM."""
        return self.sam

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """Return the losses of a batch with drawn prompts."""
        features = named_features(self.sam.encoder(batch["clear"]))
        logits, scores = predict_masks(self.sam.decoder, features, batch["coords"], batch["labels"])
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
