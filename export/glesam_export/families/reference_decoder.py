"""Defines the decoder of a family's PyTorch reference, by the contract's inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from glesam_runtime.chain import EMBEDDINGS


class ReferenceDecoder(nn.Module):
    """A prompt encoder and a mask decoder, of any family.

    `forward` takes the contract's decoder inputs by name. A subclass says how its own modules take
    them.

    Args:
        prompt_encoder: the family's prompt encoder.
        mask_decoder: the family's mask decoder.
    """

    def __init__(self, prompt_encoder: Any, mask_decoder: Any) -> None:
        super().__init__()
        self.prompt_encoder = prompt_encoder
        self.mask_decoder = mask_decoder

    @property
    def score_heads(self) -> tuple[nn.Module, ...]:
        """Return the layers that predict scores of masks, which no mask loss trains."""
        raise NotImplementedError

    def embed_prompts(
        self, point_coords: Tensor, point_labels: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embed the contract's prompts: sparse [B, P, 256] and dense [B, 256, S/16, S/16]."""
        raise NotImplementedError

    def predict_masks(
        self, features: Mapping[str, Tensor], sparse: Tensor, dense: Tensor, *, repeat: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Predict all four masks and their IoU for embedded prompts.

        Args:
            features: the encoder's outputs for one image, by the contract's names; without
                `repeat`, one row for each prompt.
            sparse: [B, P, 256].
            dense: [B, 256, S/16, S/16].
            repeat: whether the features are repeated for every prompt.

        Returns:
            Logits [B, 4, S/4, S/4] and predicted IoU [B, 4].
        """
        raise NotImplementedError

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        **high_res: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Predict all four masks [B, 4, S/4, S/4] and IoU [B, 4] of B prompts on one image."""
        features = {EMBEDDINGS: image_embeddings, **high_res}
        masks = mask_input if bool(has_mask_input.item()) else None
        sparse, dense = self.embed_prompts(point_coords, point_labels, masks)
        return self.predict_masks(features, sparse, dense)
