"""Builds SAM's encoder and decoder from segment_anything's modules, as references for graphs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)
from torch import Tensor, nn

from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_export.families.sam.presets import SamPreset
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.interface import LATENT_CHANNELS


class Decoder(ReferenceDecoder):
    """SAM's prompt encoder and mask decoder, unchanged."""

    @property
    def score_heads(self) -> tuple[nn.Module, ...]:
        """Return the head that predicts IoU."""
        return (self.mask_decoder.iou_prediction_head,)

    def embed_prompts(
        self, point_coords: Tensor, point_labels: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embed the contract's prompts: sparse [B, P, 256] and dense [B, 256, S/16, S/16].

        SAM's code takes boxes and points separately, so the box corners (labels 2 and 3) are turned
        back into a box. PromptEncoder adds the closing padding point itself. All prompts of a batch
        must have the same kinds of token.
        """
        kinds = point_labels[0]
        corner = (kinds == 2) | (kinds == 3)
        clicked = (kinds == 0) | (kinds == 1)
        boxes = point_coords[:, corner].reshape(-1, 4) if bool(corner.any()) else None
        points = (
            (point_coords[:, clicked], point_labels[:, clicked]) if bool(clicked.any()) else None
        )
        embedded: tuple[Tensor, Tensor] = self.prompt_encoder(
            points=points, boxes=boxes, masks=masks
        )
        return embedded

    def predict_masks(
        self, features: Mapping[str, Tensor], sparse: Tensor, dense: Tensor, *, repeat: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Predict all four masks and their IoU. SAM's own method always repeats the features."""
        if not repeat:
            return self._predict_rows(features[EMBEDDINGS], sparse, dense)
        result: tuple[Tensor, Tensor] = self.mask_decoder.predict_masks(
            image_embeddings=features[EMBEDDINGS],
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        return result

    def _predict_rows(
        self, embeddings: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Predict masks by the same modules, for embeddings [B, 256, s, s] of B prompts."""
        sam = self.mask_decoder
        output = torch.cat([sam.iou_token.weight, sam.mask_tokens.weight])
        tokens = torch.cat([output.expand(len(sparse), -1, -1), sparse], dim=1)
        image = embeddings + dense
        positions = self.prompt_encoder.get_dense_pe().expand(len(image), -1, -1, -1)
        tokens, image = sam.transformer(image, positions, tokens)
        square = image.transpose(1, 2).reshape(embeddings.shape)
        upscaled = sam.output_upscaling(square)
        weights = torch.stack(
            [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(sam.output_hypernetworks_mlps)], dim=1
        )
        masks = torch.einsum("bmc,bchw->bmhw", weights, upscaled)
        return masks, sam.iou_prediction_head(tokens[:, 0])


def build_encoder(preset: SamPreset) -> ImageEncoderViT:
    """Build SAM's image encoder with initial weights: [N, 3, S, S] -> [N, 256, S/16, S/16]."""
    return ImageEncoderViT(
        img_size=preset.image_size,
        patch_size=preset.patch,
        embed_dim=preset.embed_dim,
        depth=preset.depth,
        num_heads=preset.heads,
        out_chans=LATENT_CHANNELS,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        use_rel_pos=True,
        window_size=preset.window,
        global_attn_indexes=preset.global_blocks,
    )


def build_prompt_encoder(preset: SamPreset) -> PromptEncoder:
    """Build SAM's prompt encoder with initial weights."""
    side = preset.latent_size
    return PromptEncoder(
        embed_dim=LATENT_CHANNELS,
        image_embedding_size=(side, side),
        input_image_size=(preset.image_size, preset.image_size),
        mask_in_chans=16,
    )


def build_mask_decoder(preset: SamPreset) -> MaskDecoder:
    """Build SAM's mask decoder (one single mask, three multimasks) with initial weights."""
    return MaskDecoder(
        transformer_dim=LATENT_CHANNELS,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=LATENT_CHANNELS, mlp_dim=preset.decoder_mlp, num_heads=8
        ),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
    )


def build_sam(
    encoder: ImageEncoderViT, prompt_encoder: PromptEncoder, mask_decoder: MaskDecoder
) -> Sam:
    """Assemble the whole Sam, for segment_anything's own SamPredictor."""
    return Sam(encoder, prompt_encoder, mask_decoder).eval()
