"""SAM 2's prompt encoder and mask decoder, written for export: SAM's graph and what is added to it.

Prompt encoder and two-way transformer are SAM's. New are the token that asks whether the object is
there, which the others attend to, and the high-resolution features that the upscaling takes in.
"""

from __future__ import annotations

from typing import Any

from sam2.modeling.sam2_utils import LayerNorm2d as Sam2LayerNorm2d
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from glesam_export.graphs.decoder import DecoderGraph


class Sam2DecoderGraph(DecoderGraph):
    """One image's features and B prompts of P points -> four masks and scores a prompt.

    Args:
        prompt_encoder: SAM 2's; used up.
        mask_decoder: SAM 2's; used up.
    """

    def __init__(self, prompt_encoder: Any, mask_decoder: Any) -> None:
        for sequence in (prompt_encoder.mask_downscaling, mask_decoder.output_upscaling):
            _take_sams_norms(sequence)
        # Attention does not know an order: behind SAM's tokens this one leaves their places alone.
        super().__init__(prompt_encoder, mask_decoder, [mask_decoder.obj_score_token.weight.data])

    def forward(  # type: ignore[override]
        self,
        image_embeddings: Tensor,
        high_res_feats_0: Tensor,
        high_res_feats_1: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The contract's decoder: [B, 4, S/4, S/4] logits and [B, 4] predicted IoUs."""
        tokens, image = self.attend(
            image_embeddings, point_coords, point_labels, mask_input, has_mask_input
        )
        to_eighth, norm, activation, to_quarter, last_activation = self.upscaling
        eighth = to_eighth(image) + high_res_feats_1.to(self.dtype)
        quarter = to_quarter(activation(norm(eighth))) + high_res_feats_0.to(self.dtype)
        return self.answer(tokens, last_activation(quarter))


def _take_sams_norms(sequence: nn.Sequential) -> None:
    """Put SAM's LayerNorm2d where SAM 2's own stands, in place.

    The two compute the same; `precision` knows the one of them as an island.
    """
    for index, module in enumerate(sequence):
        if isinstance(module, Sam2LayerNorm2d):
            norm = LayerNorm2d(len(module.weight), module.eps)
            norm.load_state_dict(module.state_dict())
            sequence[index] = norm.to(module.weight.dtype).requires_grad_(False)
