"""SAM's decoder on many images at once, for training.

`MaskDecoder.predict_masks` repeats one image's embedding by the number of prompts, so it takes one
image a call. Here N images of B prompts each go through its own modules together.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glesam_export.families.sam.reference import Decoder


def predict_masks(
    decoder: Decoder,
    embeddings: Tensor,
    coords: Tensor,
    labels: Tensor,
) -> tuple[Tensor, Tensor]:
    """Masks of B prompts on each of N images.

    Args:
        decoder: SAM's prompt encoder and mask decoder.
        embeddings: [N, 256, s, s].
        coords: [N, B, P, 2], (x, y) in resized pixels.
        labels: [N, B, P] as in the contract (1, 0, box corners 2 and 3, padding -1); every prompt
            has the same kinds of token in the same places.

    Returns:
        Logits [N, B, 4, 4s, 4s] and predicted IoUs [N, B, 4].
    """
    count, prompts = labels.shape[:2]
    sparse, dense = decoder.embed_prompts(coords.flatten(0, 1), labels.flatten(0, 1))
    sam = decoder.mask_decoder
    output = torch.cat([sam.iou_token.weight, sam.mask_tokens.weight])
    tokens = torch.cat([output.expand(len(sparse), -1, -1), sparse], dim=1)
    image = embeddings.repeat_interleave(prompts, dim=0) + dense
    positions = decoder.prompt_encoder.get_dense_pe().expand(len(image), -1, -1, -1)
    tokens, image = sam.transformer(image, positions, tokens)
    square = image.transpose(1, 2).reshape(-1, *embeddings.shape[1:])
    upscaled = sam.output_upscaling(square)
    weights = torch.stack(
        [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(sam.output_hypernetworks_mlps)], dim=1
    )
    masks = torch.einsum("bmc,bchw->bmhw", weights, upscaled)
    scores = sam.iou_prediction_head(tokens[:, 0])
    return (
        masks.reshape(count, prompts, *masks.shape[1:]),
        scores.reshape(count, prompts, *scores.shape[1:]),
    )
