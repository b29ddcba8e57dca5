"""A checkpoint made of the user's own files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from segment_anything.modeling import ImageEncoderViT

from glesam_export.checkpoints import Checkpoint, diffusion, lora, sam, text
from glesam_export.checkpoints import tensors as files
from glesam_export.presets import SamPreset, UNetPreset
from glesam_export.reference import Decoder, Enhancer, LoraFactors, add_lora, build_unet
from glesam_runtime.bundle import sha256_of
from glesam_runtime.manifest import Source


@dataclass(frozen=True)
class WeightFiles:
    """The files a GleSAM is made of.

    Attributes:
        sam: SAM's state dict, Meta's or fine-tuned.
        sd: a diffusers folder of the U-Net's base.
        lora: the U-Net's adapters.
        prompt_embeds: [1, 77, D]; None runs the folder's text encoder on "".
    """

    sam: Path
    sd: Path
    lora: Path
    prompt_embeds: Path | None = None


class FileCheckpoint(Checkpoint):
    """Weights from files. What can be known to be wrong is known when this is constructed.

    Args:
        weights: the files.
        preset: the SAM they must fit.
        unet: the U-Net they must fit.
        gamma: adaption weight the LoRA was trained with.
        timestep: T the LoRA was trained with.

    Raises:
        CheckpointError: a file that is unreadable, unsafe, or does not fit.
    """

    trained = True
    origin = "files"

    def __init__(
        self,
        weights: WeightFiles,
        preset: SamPreset,
        unet: UNetPreset,
        gamma: float,
        timestep: int,
    ) -> None:
        self.weights, self.preset, self.unet = weights, preset, unet
        self.gamma, self.timestep = gamma, timestep
        self.alpha_bar = diffusion.alpha_bar(timestep, *diffusion.read_schedule(weights.sd))
        self.unet_file = diffusion.check_unet(weights.sd, unet)
        sam.check(files.read(weights.sam, "--sam"), preset, weights.sam)
        self._lora()
        # c is kept: it is small and a text encoder is not.
        if weights.prompt_embeds is None:
            self.text_source = ("text_encoder", text.weight_file(weights.sd))
            self.text = text.encode_empty_prompt(weights.sd, unet)
        else:
            self.text_source = ("prompt_embeds", weights.prompt_embeds)
            self.text = text.read(weights.prompt_embeds, unet)

    def encoder(self) -> ImageEncoderViT:
        """SAM's image encoder."""
        return sam.encoder(files.read(self.weights.sam, "--sam"), self.preset)

    def decoder(self) -> Decoder:
        """SAM's prompt encoder and mask decoder."""
        return sam.decoder(files.read(self.weights.sam, "--sam"), self.preset)

    def enhancer(self) -> Enhancer:
        """The widened U-Net with its adapters, and the text."""
        unet = diffusion.read_unet(self.unet_file, self.unet)
        add_lora(unet, self._lora())
        enhancer = Enhancer(unet, self.text, self.gamma, self.timestep, self.alpha_bar)
        return enhancer.eval().requires_grad_(False)

    def sources(self) -> tuple[Source, ...]:
        """Every file of tensors, hashed."""
        paths = (
            ("sam", self.weights.sam),
            ("unet", self.unet_file),
            ("lora", self.weights.lora),
            self.text_source,
        )
        return tuple(
            Source(role=role, file=path.name, sha256=sha256_of(path)) for role, path in paths
        )

    def _lora(self) -> dict[str, LoraFactors]:
        """The adapters, checked against the U-Net's shapes."""
        with torch.device("meta"):
            unet = build_unet(self.unet)
        return lora.parse(files.read(self.weights.lora, "--lora"), unet, self.weights.lora)
