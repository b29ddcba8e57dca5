"""Builds SAM 2's encoder and decoder from the sam2 package's modules, as references for graphs.

Memory attention, memory encoder and object pointers are not built. Only video reaches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sam2.modeling.backbones.hieradet import Hiera
from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.prompt_encoder import PromptEncoder
from sam2.modeling.sam.transformer import TwoWayTransformer
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from glesam_export.families.reference_decoder import ReferenceDecoder
from glesam_export.families.sam2.presets import SAM2_STABILITY, Sam2Preset
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.interface import LATENT_CHANNELS

Encoded = tuple[Tensor, Tensor, Tensor]
"""z_L [N, 256, S/16, S/16], and the features at S/4 (32 channels) and S/8 (64 channels)."""


class Sam2Encoder(nn.Module):
    """Computes what SAM2ImagePredictor keeps of an image.

    Args:
        image_encoder: Hiera and its feature pyramid.
        conv_s0: the mask decoder's projection of the features at S/4.
        conv_s1: the same for the features at S/8.
        no_mem_embed: [1, 1, 256], added to the embedding where no earlier frame is remembered.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        conv_s0: nn.Conv2d,
        conv_s1: nn.Conv2d,
        no_mem_embed: Tensor,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.conv_s0, self.conv_s1 = conv_s0, conv_s1
        self.no_mem_embed = nn.Parameter(no_mem_embed)

    def forward(self, image: Tensor) -> Encoded:
        """Encode normalised images [N, 3, S, S] into z_L and the high-resolution features."""
        quarter, eighth, sixteenth = self.image_encoder(image)["backbone_fpn"]
        z_l = sixteenth + self.no_mem_embed.view(1, -1, 1, 1)
        return z_l, self.conv_s0(quarter), self.conv_s1(eighth)


class Sam2Decoder(ReferenceDecoder):
    """SAM 2's prompt encoder and mask decoder, unchanged."""

    @property
    def score_heads(self) -> tuple[nn.Module, ...]:
        """Return the heads that predict IoU, and whether the object is there at all."""
        return (self.mask_decoder.iou_prediction_head, self.mask_decoder.pred_obj_score_head)

    def embed_prompts(
        self, point_coords: Tensor, point_labels: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Embed the contract's prompts: sparse [B, P, 256] and dense [B, 256, S/16, S/16].

        Box corners go in as points (labels 2 and 3), as in SAM2ImagePredictor. The contract's last
        point is padding; it is dropped because PromptEncoder adds its own.
        """
        points = (point_coords[:, :-1], point_labels[:, :-1]) if point_labels.shape[1] else None
        embedded: tuple[Tensor, Tensor] = self.prompt_encoder(
            points=points, boxes=None, masks=masks
        )
        return embedded

    def predict_masks(
        self, features: Mapping[str, Tensor], sparse: Tensor, dense: Tensor, *, repeat: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Predict all four masks and their IoU, refined with the high-resolution features."""
        low_res, iou, _, _ = self.mask_decoder.predict_masks(
            image_embeddings=features[EMBEDDINGS],
            image_pe=self.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            repeat_image=repeat,
            high_res_features=[features["high_res_feats_0"], features["high_res_feats_1"]],
        )
        return low_res, iou


def build_sam2_encoder(preset: Sam2Preset) -> Sam2Encoder:
    """Build SAM 2's encoder with initial weights."""
    with NumbersOnCpu():
        trunk = Hiera(
            embed_dim=preset.embed_dim,
            num_heads=preset.heads,
            stages=preset.blocks,
            global_att_blocks=preset.global_blocks,
            window_pos_embed_bkg_spatial_size=(preset.background, preset.background),
            window_spec=preset.windows,
        )
    neck = FpnNeck(
        position_encoding=PositionEmbeddingSine(LATENT_CHANNELS, warmup_cache=False),
        d_model=LATENT_CHANNELS,
        backbone_channel_list=trunk.channel_list,
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    no_mem_embed = nn.init.trunc_normal_(torch.empty(1, 1, LATENT_CHANNELS), std=0.02)
    return Sam2Encoder(
        ImageEncoder(trunk, neck, scalp=1),
        nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS // 8, 1),
        nn.Conv2d(LATENT_CHANNELS, LATENT_CHANNELS // 4, 1),
        no_mem_embed,
    )


def build_sam2_decoder(preset: Sam2Preset) -> Sam2Decoder:
    """Build SAM 2's prompt encoder and mask decoder with initial weights."""
    side = preset.latent_size
    prompt_encoder = PromptEncoder(
        embed_dim=LATENT_CHANNELS,
        image_embedding_size=(side, side),
        input_image_size=(preset.image_size, preset.image_size),
        mask_in_chans=16,
    )
    mask_decoder = MaskDecoder(
        transformer_dim=LATENT_CHANNELS,
        transformer=TwoWayTransformer(
            depth=2, embedding_dim=LATENT_CHANNELS, mlp_dim=preset.decoder_mlp, num_heads=8
        ),
        num_multimask_outputs=3,
        iou_head_depth=3,
        iou_head_hidden_dim=256,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
        dynamic_multimask_via_stability=True,
        dynamic_multimask_stability_delta=SAM2_STABILITY.offset,
        dynamic_multimask_stability_thresh=SAM2_STABILITY.threshold,
    )
    return Sam2Decoder(prompt_encoder, mask_decoder)


def build_sam2(encoder: Sam2Encoder, decoder: Sam2Decoder) -> SAM2Base:
    """Assemble SAM 2 without its memory, for sam2's own SAM2ImagePredictor."""
    model = SAM2Base(
        encoder.image_encoder,
        memory_attention=nn.Identity(),
        memory_encoder=nn.Identity(),
        image_size=decoder.prompt_encoder.input_image_size[0],
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
    )
    model.no_mem_embed = encoder.no_mem_embed
    model.sam_prompt_encoder, model.sam_mask_decoder = decoder.prompt_encoder, decoder.mask_decoder
    model.sam_mask_decoder.conv_s0 = encoder.conv_s0
    model.sam_mask_decoder.conv_s1 = encoder.conv_s1
    return model.eval()


class NumbersOnCpu(TorchFunctionMode):
    """Runs torch.linspace on the CPU, because Hiera reads its values while it is built.

    On the meta device those tensors hold no values.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a torch function; torch.linspace runs on the CPU."""
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)
