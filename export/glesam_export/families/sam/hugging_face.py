"""Says how transformers' SamModel names SAM's tensors, and what its config.json must say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glesam_export.families.hugging_face import DECODER_NAMES, HuggingFace
from glesam_export.families.sam.presets import SamPreset

ENCODER_NAMES = (
    (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
    (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
    (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
    (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
    (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.", "image_encoder."),
)


def settings(preset: SamPreset) -> Mapping[str, Any]:
    """Return what the config.json must say.

    `layer_norm_eps` of the mask decoder is left out: transformers has 1e-6 where Meta's code, from
    which the weights come, has 1e-5.
    """
    return {
        "vision_config.image_size": preset.image_size,
        "vision_config.hidden_size": preset.embed_dim,
        "vision_config.num_hidden_layers": preset.depth,
        "vision_config.num_attention_heads": preset.heads,
        "vision_config.global_attn_indexes": preset.global_blocks,
        "vision_config.window_size": preset.window,
        "vision_config.patch_size": preset.patch,
        "vision_config.hidden_act": "gelu",
        "vision_config.layer_norm_eps": 1e-6,
        "vision_config.use_abs_pos": True,
        "vision_config.use_rel_pos": True,
        "prompt_encoder_config.image_size": preset.image_size,
        "prompt_encoder_config.patch_size": preset.patch,
        "prompt_encoder_config.hidden_act": "gelu",
        "prompt_encoder_config.layer_norm_eps": 1e-6,
        "mask_decoder_config.hidden_act": "relu",
        "mask_decoder_config.num_attention_heads": 8,
        "mask_decoder_config.num_multimask_outputs": 3,
        "mask_decoder_config.iou_head_depth": 3,
    }


HUGGING_FACE = HuggingFace(
    model_types=("sam",),
    marks=(
        *("vision_encoder.neck.", "vision_encoder.patch_embed.", "mask_decoder.upscale_"),
        *("prompt_encoder.mask_embed.", "prompt_encoder.point_embed."),
    ),
    names=("vision_encoder.", "prompt_encoder.", "mask_decoder.", "shared_image_embedding."),
    renames=(*ENCODER_NAMES, *DECODER_NAMES),
    settings=settings,
    defaults={
        "vision_config.image_size": 1024,
        "vision_config.hidden_size": 768,
        "vision_config.num_hidden_layers": 12,
        "vision_config.num_attention_heads": 12,
        "vision_config.global_attn_indexes": (2, 5, 8, 11),
        "vision_config.window_size": 14,
        "vision_config.patch_size": 16,
        "vision_config.hidden_act": "gelu",
        "vision_config.layer_norm_eps": 1e-6,
        "vision_config.use_abs_pos": True,
        "vision_config.use_rel_pos": True,
        "prompt_encoder_config.image_size": 1024,
        "prompt_encoder_config.patch_size": 16,
        "prompt_encoder_config.hidden_act": "gelu",
        "prompt_encoder_config.layer_norm_eps": 1e-6,
        "mask_decoder_config.hidden_act": "relu",
        "mask_decoder_config.num_attention_heads": 8,
        "mask_decoder_config.num_multimask_outputs": 3,
        "mask_decoder_config.iou_head_depth": 3,
    },
)
