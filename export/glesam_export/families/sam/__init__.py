"""Defines the SAM family: ViT encoder, image padded to a square, boxes as two points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from glesam_export.families.family import Family, InputName
from glesam_export.families.sam.hugging_face import HUGGING_FACE
from glesam_export.families.sam.presets import SAM_PRESETS, SamPreset
from glesam_runtime.manifest import (
    PROMPT_LABELS,
    Coordinates,
    EverythingThresholds,
    FirstResize,
    Postprocessing,
    Preprocessing,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

    from glesam_export.families.reference_decoder import ReferenceDecoder
    from glesam_export.families.sam.reference import Decoder
    from glesam_export.graphs import Graph

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""Mean and deviation of ImageNet's colours in 0..255, as in segment_anything.Sam. sam2 has the same
values divided by 255."""


RELEASED_SHARE = 2
"""S divided by the side of the released code's picture: 1024 / 512. Smaller presets keep the
share, so that nano loses as much detail as the full models."""


class SamFamily(Family[SamPreset]):
    """Images, masks and prompts follow segment_anything's SamPredictor, or the released GleSAM."""

    name = "sam"
    title = "SAM"
    contract = "sam"
    suffix = ".pth"
    parts = ("image_encoder", "prompt_encoder", "mask_decoder")
    key_prefixes = tuple(f"{part}." for part in parts)
    hugging_face = HUGGING_FACE

    @property
    def presets(self) -> Mapping[str, SamPreset]:
        """Return SAM's released sizes and nano."""
        return SAM_PRESETS

    def with_input(self, preset: SamPreset, name: InputName) -> SamPreset:
        """Return the preset with either input."""
        return replace(preset, input=name)

    def preprocessing(self, preset: SamPreset) -> Preprocessing:
        """Scale the longest side to S and pad, or squash to a small square and enlarge it to S."""
        if preset.input == "released":
            return Preprocessing(
                image_size=preset.image_size,
                resize="square",
                kernel="float_bilinear",
                channel_order="RGB",
                mean=PIXEL_MEAN,
                std=PIXEL_STD,
                pad="none",
                first_resize=FirstResize(preset.image_size // RELEASED_SHARE, "pillow_bicubic"),
            )
        return Preprocessing(
            image_size=preset.image_size,
            resize="longest_side",
            kernel="pillow_bilinear",
            channel_order="RGB",
            mean=PIXEL_MEAN,
            std=PIXEL_STD,
            pad="right_bottom",
        )

    def postprocessing(self, preset: SamPreset) -> Postprocessing:
        """Scale up to S, crop the padding, scale to the image; or scale directly to the image."""
        return Postprocessing(
            upscale="bilinear_direct" if preset.input == "released" else "bilinear",
            mask_threshold=0.0,
            stability_offset=1.0,
            single_mask="first",
        )

    def coordinates(self, preset: SamPreset) -> Coordinates:
        """Pass a box as its two corners."""
        return Coordinates(
            order="xy",
            space="resized_pixels",
            pixel_offset=0.5,
            labels=PROMPT_LABELS,
            box="two_points",
        )

    def everything(self, preset: SamPreset) -> EverythingThresholds | UnsetType:
        """Return those of the preset: nano's predicted IoU and stability are lower."""
        return preset.everything or UNSET

    def build_encoder(self, preset: SamPreset) -> nn.Module:
        """Build an ImageEncoderViT."""
        from glesam_export.families.sam import reference

        encoder: nn.Module = reference.build_encoder(preset)
        return encoder

    def build_decoder(self, preset: SamPreset) -> Decoder:
        """Build prompt encoder and mask decoder."""
        from glesam_export.families.sam import reference

        prompt_encoder = reference.build_prompt_encoder(preset)
        return reference.Decoder(prompt_encoder, reference.build_mask_decoder(preset))

    def encoder_graph(self, encoder: nn.Module, preset: SamPreset) -> Graph:
        """Build the encoder's graph."""
        from glesam_export.families.sam.encoder import EncoderGraph

        return EncoderGraph(encoder)

    def decoder_graph(self, decoder: ReferenceDecoder, preset: SamPreset) -> Graph:
        """Build the decoder's graph."""
        from glesam_export.families.sam.decoder import DecoderGraph

        return DecoderGraph(decoder.prompt_encoder, decoder.mask_decoder)

    def misfits(self, state: Mapping[str, Tensor], preset: SamPreset) -> list[str]:
        """Compare names and shapes with the preset's."""
        from glesam_export.families.sam import checkpoint

        return checkpoint.misfits(state, preset)

    def load_encoder(self, state: Mapping[str, Tensor], preset: SamPreset) -> nn.Module:
        """Build the encoder from a state dict that fits."""
        from glesam_export.families.sam import checkpoint

        return checkpoint.encoder(state, preset)

    def load_decoder(self, state: Mapping[str, Tensor], preset: SamPreset) -> Decoder:
        """Build the decoder from a state dict that fits."""
        from glesam_export.families.sam import checkpoint

        return checkpoint.decoder(state, preset)

    def state_dict(self, encoder: nn.Module, decoder: ReferenceDecoder) -> dict[str, Tensor]:
        """Return the weights with Meta's keys, in Meta's order."""
        from glesam_export.families.sam import checkpoint

        return checkpoint.state_dict(encoder, decoder)
