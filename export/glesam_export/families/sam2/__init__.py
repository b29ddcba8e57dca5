"""Defines the SAM 2 family: Hiera encoder, high-resolution features, image stretched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from glesam_export.families.family import Family
from glesam_export.families.sam import PIXEL_MEAN, PIXEL_STD
from glesam_export.families.sam2.hugging_face import HUGGING_FACE
from glesam_export.families.sam2.presets import SAM2_PRESETS, SAM2_STABILITY, Sam2Preset
from glesam_runtime.manifest import (
    PROMPT_LABELS,
    Coordinates,
    Postprocessing,
    Preprocessing,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from glesam_export.families.reference_decoder import ReferenceDecoder
    from glesam_export.families.sam2.reference import Sam2Decoder, Sam2Encoder
    from glesam_export.graphs import Graph

SAM2_LOW_RES_LIMIT = 32.0
"""Limit to which SAM2ImagePredictor clips the logits that it returns."""


class Sam2Family(Family[Sam2Preset]):
    """Images, masks and prompts follow sam2's SAM2ImagePredictor on a model from build_sam2.

    Only the methods that build, load or trace a model import the sam2 package.
    """

    name = "sam2"
    title = "SAM 2"
    contract = "sam2"
    tools = ("sam2",)
    suffix = ".pt"
    parts = ("image_encoder", "sam_prompt_encoder", "sam_mask_decoder")
    key_prefixes = ("image_encoder.trunk.", "sam_prompt_encoder.", "sam_mask_decoder.")
    hugging_face = HUGGING_FACE

    @property
    def presets(self) -> Mapping[str, Sam2Preset]:
        """Return the released sizes of SAM 2 and 2.1, and nano2."""
        return SAM2_PRESETS

    def preprocessing(self, preset: Sam2Preset) -> Preprocessing:
        """Stretch the image to S by S, in float."""
        return Preprocessing(
            image_size=preset.image_size,
            resize="square",
            kernel="float_bilinear",
            channel_order="RGB",
            mean=PIXEL_MEAN,
            std=PIXEL_STD,
            pad="none",
        )

    def postprocessing(self, preset: Sam2Preset) -> Postprocessing:
        """Scale directly to the image; an unstable single mask gives way to the best of three."""
        return Postprocessing(
            upscale="bilinear_direct",
            mask_threshold=0.0,
            stability_offset=1.0,
            single_mask="first_if_stable",
            stability=SAM2_STABILITY,
            low_res_limit=SAM2_LOW_RES_LIMIT,
        )

    def coordinates(self, preset: Sam2Preset) -> Coordinates:
        """Pass a box as its two corners and a padding point."""
        return Coordinates(
            order="xy",
            space="resized_pixels",
            pixel_offset=0.5,
            labels=PROMPT_LABELS,
            box="two_points_padded",
        )

    def build_encoder(self, preset: Sam2Preset) -> Sam2Encoder:
        """Build Hiera with its feature pyramid."""
        from glesam_export.families.sam2 import reference

        return reference.build_sam2_encoder(preset)

    def build_decoder(self, preset: Sam2Preset) -> Sam2Decoder:
        """Build prompt encoder and mask decoder."""
        from glesam_export.families.sam2 import reference

        return reference.build_sam2_decoder(preset)

    def encoder_graph(self, encoder: nn.Module, preset: Sam2Preset) -> Graph:
        """Build the encoder's graph."""
        from glesam_export.families.sam2.graphs import Sam2EncoderGraph

        return Sam2EncoderGraph(encoder, preset.image_size)

    def decoder_graph(self, decoder: ReferenceDecoder, preset: Sam2Preset) -> Graph:
        """Build the decoder's graph."""
        from glesam_export.families.sam2.graphs import Sam2DecoderGraph

        return Sam2DecoderGraph(decoder.prompt_encoder, decoder.mask_decoder)

    def misfits(self, state: Mapping[str, Tensor], preset: Sam2Preset) -> list[str]:
        """Compare names and shapes with the preset's, except for tensors that only video needs."""
        from glesam_export.families.sam2 import checkpoint

        return checkpoint.misfits(state, preset)

    def used(self, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the state dict without the tensors that only video needs."""
        from glesam_export.families.sam2 import checkpoint

        return checkpoint.used(state)

    def load_encoder(self, state: Mapping[str, Tensor], preset: Sam2Preset) -> Sam2Encoder:
        """Build the encoder from a state dict that fits."""
        from glesam_export.families.sam2 import checkpoint

        return checkpoint.encoder(state, preset)

    def load_decoder(self, state: Mapping[str, Tensor], preset: Sam2Preset) -> Sam2Decoder:
        """Build the decoder from a state dict that fits."""
        from glesam_export.families.sam2 import checkpoint

        return checkpoint.decoder(state, preset)

    def state_dict(self, encoder: nn.Module, decoder: ReferenceDecoder) -> dict[str, Tensor]:
        """Return the weights with Meta's keys, without those that only video needs."""
        from glesam_export.families.sam2 import checkpoint

        return checkpoint.state_dict(encoder, decoder)

    def file_content(self, state: dict[str, Tensor]) -> object:
        """Nest the state dict under "model", as Meta's files do."""
        return {"model": state}
