"""Algorithm 1's two stages as objectives: first the enhancer, then the decoder."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from glesam_export.enhancer.reference import Enhancer
from glesam_export.families import named_features
from glesam_export.families.sam.reference import Decoder
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.prompts import BACKGROUND
from glesam_training.decoding import predict_masks
from glesam_training.loop import Objective
from glesam_training.losses import FOCAL_ALPHA, latent_mse, mask_loss, soft_iou

DecoderPart = Literal["tokens", "all", "background"]
"""What stage 2 trains: the mask tokens (FT-T), all but the IoU head (FT-D), or what says of a point
that it is background, which leaves every prompt without such a point as it was."""


class EnhancerObjective(Objective):
    """Stage 1: the enhanced latent of the low image is to be the clear image's.

    MSE(GLE(z_L), z_H) (paper, Algorithm 1), and if asked for the mask loss through the frozen
    decoder, which says what of the latent matters.

    Args:
        encoder: frozen; None where batches hold latents.
        enhancer: its adapters are trained.
        decoder: frozen; needed for the mask loss.
        mask_weight: of Dice + Focal beside the MSE, which is divided by the latent's variance
            then; 0 is the paper's loss.
        alpha: of the mask loss.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        enhancer: Enhancer,
        decoder: Decoder | None = None,
        mask_weight: float = 0.0,
        alpha: float = FOCAL_ALPHA,
    ) -> None:
        super().__init__()
        self.encoder, self.enhancer, self.decoder = encoder, enhancer, decoder
        self.mask_weight, self.alpha = mask_weight, alpha
        for part in (encoder, decoder):
            if part is not None:
                part.requires_grad_(False)
        train_adapters(enhancer)

    def trained(self) -> nn.Module:
        """The U-Net, of which only adapters are unfrozen."""
        unet: nn.Module = self.enhancer.unet
        return unet

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """MSE, the MSE without enhancement to compare with, and the mask loss."""
        z_low, z_clear = latents(self.encoder, batch)
        enhanced = self.enhancer(z_low).float()
        mse = latent_mse(enhanced, z_clear)
        losses = {"loss": mse, "mse": mse, "mse_before": latent_mse(z_low, z_clear)}
        if self.mask_weight and self.decoder is not None:
            logits, _ = predict_masks(self.decoder, enhanced, batch["coords"], batch["labels"])
            masks = mask_loss(logits[:, :, 0].float(), batch["target"], self.alpha).mean()
            losses["loss"] = mse / z_clear.var() + self.mask_weight * masks
            losses["mask"] = masks
        return losses


class DecoderObjective(Objective):
    """Stage 2: the decoder learns to read enhanced latents, by Dice + Focal (paper, Algorithm 1).

    The first mask is taught, and the best of the three others.

    Args:
        encoder: frozen; None where batches hold latents.
        enhancer: frozen; None trains the control, a decoder on latents as they are.
        decoder: the part of it named by `part` is trained.
        part: the mask tokens, all but the IoU head, or the embedding of background points.
        alpha: of the mask loss.
    """

    def __init__(
        self,
        encoder: nn.Module | None,
        enhancer: Enhancer | None,
        decoder: Decoder,
        part: DecoderPart,
        alpha: float = FOCAL_ALPHA,
    ) -> None:
        super().__init__()
        self.encoder, self.enhancer, self.decoder = encoder, enhancer, decoder
        self.alpha = alpha
        for frozen in (encoder, enhancer, decoder):
            if frozen is not None:
                frozen.requires_grad_(False)
        if part == "tokens":
            decoder.mask_decoder.mask_tokens.requires_grad_(True)
        elif part == "background":
            decoder.prompt_encoder.point_embeddings[BACKGROUND].requires_grad_(True)
        else:
            decoder.requires_grad_(True)
            decoder.mask_decoder.iou_prediction_head.requires_grad_(False)

    def trained(self) -> nn.Module:
        """The decoder."""
        return self.decoder

    def forward(self, batch: dict[str, Tensor], progress: float) -> dict[str, Tensor]:
        """The mask loss and the IoU reached at low resolution."""
        with torch.no_grad():
            z, _ = latents(self.encoder, batch)
            if self.enhancer is not None:
                z = self.enhancer(z).float()
        logits, _ = predict_masks(self.decoder, z, batch["coords"], batch["labels"])
        logits = logits.float()
        target = batch["target"].unsqueeze(2).expand_as(logits)
        each = mask_loss(logits, target, self.alpha)
        single, several = each[..., 0].mean(), each[..., 1:].amin(-1).mean()
        reached = soft_iou(logits[:, :, 0].detach(), batch["target"]).mean()
        return {"loss": single + several, "mask": single, "iou": reached}


def train_adapters(enhancer: Enhancer) -> None:
    """Freeze an enhancer but for its LoRA factors."""
    for name, parameter in enhancer.named_parameters():
        parameter.requires_grad_(".lora_A." in name or ".lora_B." in name)


def latents(encoder: nn.Module | None, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """z_L and z_H of a batch, [N, 256, s, s] each: encoded, or as they were stored."""
    if encoder is None:
        return batch["z_l"], batch["z_h"]
    with torch.no_grad():
        low, clear = (named_features(encoder(batch[key])) for key in ("low", "clear"))
        return low[EMBEDDINGS].float(), clear[EMBEDDINGS].float()
