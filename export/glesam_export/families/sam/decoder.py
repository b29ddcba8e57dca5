"""Builds SAM's prompt encoder and mask decoder as one graph for export.

Control flow on the prompt becomes arithmetic on its labels. The image embedding is broadcast over
the prompts, because repeat_interleave becomes a OneHot with a shape tensor, which TensorRT rejects.
The host selects the mask to return and scales it up.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder
from segment_anything.modeling.transformer import Attention, TwoWayTransformer
from torch import Tensor, nn

from glesam_export.graphs import (
    Attend,
    Graph,
    join_heads,
    scale_rows,
    split_heads,
    unflatten,
)


class PointEmbedding(nn.Module):
    """Turns points and labels into sparse prompt tokens.

    It computes in float32 in every precision, because coordinates reach 1024. The labels are 0 for
    background, 1 for foreground, 2 and 3 for box corners and -1 for padding.
    """

    label_embeddings: Tensor
    padding_embedding: Tensor
    frequencies: Tensor

    def __init__(self, reference: PromptEncoder) -> None:
        super().__init__()
        self.image_size = float(reference.input_image_size[0])
        stacked = torch.cat([embedding.weight for embedding in reference.point_embeddings])
        self.register_buffer("label_embeddings", stacked.detach())  # [4, C]
        self.register_buffer("padding_embedding", reference.not_a_point_embed.weight.detach())
        self.register_buffer(
            "frequencies", reference.pe_layer.positional_encoding_gaussian_matrix
        )  # [2, C / 2]

    def forward(self, coords: Tensor, labels: Tensor) -> Tensor:
        """Embed coords [B, P, 2] in resized pixels and labels [B, P] as tokens [B, P, C]."""
        unit = (coords + 0.5) * (2.0 / self.image_size) - 1.0
        phase = (unit @ self.frequencies) * (2 * torch.pi)
        position = torch.cat([phase.sin(), phase.cos()], dim=-1)
        label = labels.unsqueeze(-1)
        padding = (label == -1).float()
        tokens = position * (1 - padding) + self.padding_embedding * padding
        for value in range(4):
            tokens = tokens + self.label_embeddings[value] * (label == value).float()
        return tokens


class TokenAttention(nn.Module):
    """The two-way transformer's attention. Its scale is folded into the query projection."""

    def __init__(self, reference: Attention) -> None:
        super().__init__()
        self.heads = reference.num_heads
        self.q_proj, self.k_proj = reference.q_proj, reference.k_proj
        self.v_proj, self.out_proj = reference.v_proj, reference.out_proj
        self.attend = Attend()
        scale_rows(self.q_proj, (reference.internal_dim // reference.num_heads) ** -0.5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Compute [B, L, C] from q [B, L, C], k and v [B, M, C]."""
        q = split_heads(self.q_proj(q), self.heads)
        k = split_heads(self.k_proj(k), self.heads)
        v = split_heads(self.v_proj(v), self.heads)
        out: Tensor = self.out_proj(join_heads(self.attend(q, k, v)))
        return out


class TwoWay(nn.Module):
    """The two-way transformer: prompt tokens and image tokens attend to each other."""

    def __init__(self, reference: TwoWayTransformer) -> None:
        super().__init__()
        for layer in reference.layers:
            layer.self_attn = TokenAttention(layer.self_attn)
            layer.cross_attn_token_to_image = TokenAttention(layer.cross_attn_token_to_image)
            layer.cross_attn_image_to_token = TokenAttention(layer.cross_attn_image_to_token)
        self.layers = reference.layers
        self.final_attention = TokenAttention(reference.final_attn_token_to_image)
        self.final_norm = reference.norm_final_attn

    def forward(self, image: Tensor, image_pe: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Update tokens [B, T, C] and image [B, L, C], given image_pe [1, L, C]; return both."""
        queries, keys = tokens, image
        for layer in self.layers:
            queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=image_pe)
        attended = self.final_attention(queries + tokens, keys + image_pe, keys)
        return self.final_norm(queries + attended), keys


class DecoderGraph(Graph):
    """Computes four masks and scores for each of B prompts of P points on one image.

    Args:
        prompt_encoder: SAM's. This graph takes over its layers.
        mask_decoder: SAM's. This graph takes over its layers.
        further_tokens: tokens of the mask decoder, each [1, C], in addition to the IoU token and
            the mask tokens.
    """

    dense_positions: Tensor

    def __init__(
        self,
        prompt_encoder: PromptEncoder,
        mask_decoder: MaskDecoder,
        further_tokens: Sequence[Tensor] = (),
    ) -> None:
        super().__init__()
        self.points = PointEmbedding(prompt_encoder)
        self.mask_downscaling = prompt_encoder.mask_downscaling
        self.no_mask = nn.Parameter(prompt_encoder.no_mask_embed.weight.data.view(1, -1, 1, 1))
        positions = prompt_encoder.get_dense_pe().detach().flatten(2).transpose(1, 2)
        self.register_buffer("dense_positions", positions)  # [1, s * s, C]
        output_tokens = [mask_decoder.iou_token.weight.data, mask_decoder.mask_tokens.weight.data]
        output_tokens += further_tokens
        self.output_tokens = nn.Parameter(torch.cat(output_tokens).unsqueeze(0))  # [1, 5.., C]
        self.transformer = TwoWay(mask_decoder.transformer)
        self.upscaling = mask_decoder.output_upscaling
        self.hypernetworks = mask_decoder.output_hypernetworks_mlps
        self.iou_head = mask_decoder.iou_prediction_head

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Compute the contract's decoder outputs: logits [B, 4, S/4, S/4], predicted IoU [B, 4]."""
        tokens, image = self.attend(
            image_embeddings, point_coords, point_labels, mask_input, has_mask_input
        )
        return self.answer(tokens, self.upscaling(image))

    def attend(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Run the transformer, and return tokens [B, T, C] and image [B, C, S/16, S/16]."""
        side = image_embeddings.shape[-1]
        prompt = self.points(point_coords, point_labels).to(self.dtype)
        output = self.output_tokens.expand(prompt.shape[0], -1, -1)
        tokens = torch.cat([output, prompt], dim=1)

        has_mask = has_mask_input.to(self.dtype)
        dense = self.mask_downscaling(mask_input.to(self.dtype))
        dense = has_mask * dense + (1 - has_mask) * self.no_mask
        image = (image_embeddings.to(self.dtype) + dense).flatten(2).transpose(1, 2)

        tokens, image = self.transformer(image, self.dense_positions, tokens)
        return tokens, unflatten(image.transpose(1, 2), 2, side, side)

    def answer(self, tokens: Tensor, upscaled: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits and IoU from tokens [B, T, C] and features [B, C/8, S/4, S/4]."""
        side = upscaled.shape[-1]
        weights = torch.stack(
            [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.hypernetworks)], dim=1
        )
        masks = unflatten(weights @ upscaled.flatten(2), 2, side, side)
        return masks.float(), self.iou_head(tokens[:, 0]).float()
