"""What the manifest says of images, masks and prompts, by the preset's family.

SAM's rules are those of segment_anything's SamPredictor, SAM 2's those of sam2's
SAM2ImagePredictor on a model from build_sam2.
"""

from __future__ import annotations

from glesam_export.presets import Preset
from glesam_runtime.manifest import Coordinates, Postprocessing, Preprocessing, Stability

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""ImageNet's, in 0..255: segment_anything.Sam has them so, sam2's transforms divided by 255."""

SAM2_STABILITY = Stability(offset=0.05, threshold=0.98)
"""What build_sam2 sets for the fallback from the single mask to the best of three."""

SAM2_LOW_RES_LIMIT = 32.0
"""Where SAM2ImagePredictor clips the logits that it returns."""

LABELS = {
    "background": 0,
    "foreground": 1,
    "box_top_left": 2,
    "box_bottom_right": 3,
    "padding": -1,
}


def preprocessing(preset: Preset) -> Preprocessing:
    """How the preset's encoder takes an image."""
    square = preset.family == "sam2"
    return Preprocessing(
        image_size=preset.image_size,
        resize="square" if square else "longest_side",
        kernel="float_bilinear" if square else "pillow_bilinear",
        channel_order="RGB",
        mean=PIXEL_MEAN,
        std=PIXEL_STD,
        pad="none" if square else "right_bottom",
    )


def postprocessing(preset: Preset) -> Postprocessing:
    """How the preset's logits become masks."""
    if preset.family == "sam2":
        return Postprocessing(
            upscale="bilinear_direct",
            mask_threshold=0.0,
            stability_offset=1.0,
            single_mask="first_if_stable",
            stability=SAM2_STABILITY,
            low_res_limit=SAM2_LOW_RES_LIMIT,
        )
    return Postprocessing(
        upscale="bilinear", mask_threshold=0.0, stability_offset=1.0, single_mask="first"
    )


def coordinates(preset: Preset) -> Coordinates:
    """How the preset's decoder takes prompts."""
    return Coordinates(
        order="xy",
        space="resized_pixels",
        pixel_offset=0.5,
        labels=LABELS,
        box="two_points_padded" if preset.family == "sam2" else "two_points",
    )
