"""Says how transformers' Sam2Model names SAM 2's tensors, and what its config.json must say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glesam_export.families.hugging_face import DECODER_NAMES, HuggingFace
from glesam_export.families.sam2.presets import SAM2_STABILITY, Sam2Preset

VIDEO_NAMES = {
    "memory_temporal_positional_encoding": "maskmem_tpos_enc",
    "no_memory_positional_encoding": "no_mem_pos_enc",
    "no_object_pointer": "no_obj_ptr",
    "occlusion_spatial_embedding_parameter": "no_obj_embed_spatial",
    "object_pointer_proj.": "obj_ptr_proj.",
    "temporal_positional_encoding_projection_layer.": "obj_ptr_tpos_proj.",
    "mask_downsample.": "mask_downsample.",
    "memory_attention.": "memory_attention.",
    "memory_encoder.": "memory_encoder.",
}
"""Beginnings of the names in a Sam2VideoModel that only video needs, and Meta's. An export does not
read these tensors, but their names tell SAM 2 from SAM 2.1."""

RENAMES = (
    (r"^vision_encoder\.backbone\.", "image_encoder.trunk."),
    (r"^vision_encoder\.neck\.convs\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
    (r"\bpatch_embed\.projection\.", "patch_embed.proj."),
    (r"^no_memory_embedding$", "no_mem_embed"),
    (r"\bmlp\.proj_in\.", "mlp.layers.0."),
    (r"\bmlp\.proj_out\.", "mlp.layers.1."),
    (r"\bo_proj\.", "out_proj."),
    *DECODER_NAMES,
    (r"^(prompt_encoder|mask_decoder)\.", r"sam_\1."),
    *((rf"^{theirs}".replace(".", r"\."), metas) for theirs, metas in VIDEO_NAMES.items()),
)

_HIERA = "vision_config.backbone_config."


def settings(preset: Sam2Preset) -> Mapping[str, Any]:
    """Return what the config.json must say."""
    stages = [2**stage for stage in range(len(preset.blocks))]
    return {
        "prompt_encoder_config.image_size": preset.image_size,
        _HIERA + "image_size": preset.image_size,
        _HIERA + "blocks_per_stage": preset.blocks,
        _HIERA + "embed_dim_per_stage": [preset.embed_dim * factor for factor in stages],
        _HIERA + "num_attention_heads_per_stage": [preset.heads * factor for factor in stages],
        _HIERA + "window_size_per_stage": preset.windows,
        _HIERA + "global_attention_blocks": preset.global_blocks,
        _HIERA + "window_positional_embedding_background_size": preset.background,
        **FIXED,
    }


FIXED: Mapping[str, Any] = {
    _HIERA + "patch_stride": 4,
    _HIERA + "patch_padding": 3,
    _HIERA + "query_stride": 2,
    _HIERA + "num_query_pool_stages": 3,
    _HIERA + "hidden_act": "gelu",
    _HIERA + "layer_norm_eps": 1e-6,
    "vision_config.fpn_top_down_levels": [2, 3],
    "vision_config.num_feature_levels": 3,
    "prompt_encoder_config.patch_size": 16,
    "prompt_encoder_config.hidden_act": "gelu",
    "prompt_encoder_config.layer_norm_eps": 1e-6,
    "prompt_encoder_config.scale": 1,
    "mask_decoder_config.num_attention_heads": 8,
    "mask_decoder_config.num_multimask_outputs": 3,
    "mask_decoder_config.iou_head_depth": 3,
    "mask_decoder_config.dynamic_multimask_via_stability": True,
    "mask_decoder_config.dynamic_multimask_stability_delta": SAM2_STABILITY.offset,
    "mask_decoder_config.dynamic_multimask_stability_thresh": SAM2_STABILITY.threshold,
}
"""What all presets have, which is also transformers' default."""

HUGGING_FACE = HuggingFace(
    model_types=("sam2", "sam2_video"),
    marks=(
        *("vision_encoder.backbone.", "vision_encoder.neck.convs.", "mask_decoder.conv_s"),
        *("mask_decoder.obj_score_token.", "prompt_encoder.point_embed.weight"),
    ),
    names=(
        *("vision_encoder.", "prompt_encoder.", "mask_decoder.", "shared_image_embedding."),
        *("no_memory_embedding", *VIDEO_NAMES),
    ),
    renames=RENAMES,
    settings=settings,
    defaults={
        "prompt_encoder_config.image_size": 1024,
        _HIERA + "image_size": 1024,
        _HIERA + "blocks_per_stage": (1, 2, 7, 2),
        _HIERA + "embed_dim_per_stage": (96, 192, 384, 768),
        _HIERA + "num_attention_heads_per_stage": (1, 2, 4, 8),
        _HIERA + "window_size_per_stage": (8, 4, 14, 7),
        _HIERA + "global_attention_blocks": (5, 7, 9),
        _HIERA + "window_positional_embedding_background_size": 7,
        **FIXED,
    },
)
