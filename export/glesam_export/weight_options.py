"""Declares the options that say where weights come from, for all commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from glesam_export import families
from glesam_export.families import InputName
from glesam_export.presets import UNET_PRESETS
from glesam_export.timesteps import parse_timesteps
from glesam_runtime.errors import InputError

WEIGHTS = "Weights"
"""Heading of these options in --help."""


@dataclass(frozen=True)
class WeightOptions:
    """The options that say where weights come from; None where one was not given."""

    preset: Annotated[
        str | None,
        typer.Option(
            help=f"SAM preset: {', '.join(families.presets())}. Default: the one that --sam fits."
        ),
    ] = None
    unet: Annotated[
        str | None,
        typer.Option(
            help=f"U-Net preset: {', '.join(UNET_PRESETS)}. Default: the one that --sd fits, or "
            "the SAM preset's own."
        ),
    ] = None
    sam: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="SAM's weights (.pth, .pt, .safetensors), or a folder from Hugging Face.",
        ),
    ] = None
    sd: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="Stable Diffusion: a diffusers folder, or its U-Net's weights with --unet-config.",
        ),
    ] = None
    lora: Annotated[
        list[Path] | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="The U-Net's LoRA (.safetensors), or a folder of PEFT or diffusers.",
        ),
    ] = None
    prompt_embeds: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="Embedding [1,77,D] of the text of the LoRA's training (.npy, .safetensors). "
            "Default: the empty text, encoded by the text encoder of the --sd folder.",
        ),
    ] = None
    gamma: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="Factor on the latent before the U-Net, as in the LoRA's training: 5 in the "
            "paper, 3 or 5 in released code.",
        ),
    ] = None
    timestep: Annotated[
        int | None,
        typer.Option(
            parser=parse_timesteps,
            metavar="T[,T...]",
            rich_help_panel=WEIGHTS,
            help="Diffusion timestep of the LoRA's training: 999 in the paper, 1 in released code. "
            "Several write an enhancer that can run each of them (glesam-export only); the first "
            "is the default.",
        ),
    ] = None
    input: Annotated[
        InputName | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="How images were prepared in the training: 'sam' (as SAM's own predictor prepares "
            "them) or 'released' (squashed to 512 x 512 first, as in the released GleSAM code). "
            "Default: what --checkpoint says, or sam.",
        ),
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="All weights in one: a folder from glesam-train, or a packed .safetensors file.",
        ),
    ] = None
    unet_config: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WEIGHTS, help="config.json of the U-Net, if --sd is a weights file."
        ),
    ] = None

    random_weights: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            metavar="SEED",
            help="Draw random weights from this seed, for tests.",
        ),
    ] = None
    decoder: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="Fine-tuned decoder whose tensors replace those of --sam (.pth, .safetensors).",
        ),
    ] = None
    lora_alpha: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="Alpha of the LoRA's training, for a --lora that does not say it: 8 in released "
            "code.",
        ),
    ] = None

    prediction_type: Annotated[
        Literal["epsilon"] | None,
        typer.Option(
            rich_help_panel=WEIGHTS,
            help="Read the output of the U-Net of --sd as noise, whatever its scheduler says, as "
            "the released code does. Default: refuse a base that predicts something else.",
        ),
    ] = None

    @property
    def lora_file(self) -> Path | None:
        """Return the file of --lora; None where none was given.

        Raises:
            InputError: several were given.
        """
        if self.lora and len(self.lora) > 1:
            raise InputError(
                f"--lora: {len(self.lora)} files were given, but one LoRA serves every timestep of "
                "an enhancer; export a bundle for each file"
            )
        return self.lora[0] if self.lora else None

    @property
    def given_files(self) -> list[str]:
        """Return the file options that were given."""
        files = {
            "--sam": self.sam,
            "--sd": self.sd,
            "--lora": self.lora_file,
            "--prompt-embeds": self.prompt_embeds,
            "--unet-config": self.unet_config,
            "--decoder": self.decoder,
        }
        return [name for name, path in files.items() if path is not None]

    @property
    def given_weights(self) -> list[str]:
        """Return the options that were given and say where weights come from."""
        others = {"--checkpoint": self.checkpoint, "--random-weights": self.random_weights}
        return [name for name, value in others.items() if value is not None] + self.given_files
