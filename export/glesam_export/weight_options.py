"""The options that say where weights come from: every command that reads a checkpoint has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

WEIGHTS = "Weights"
"""Their heading in --help."""

Preset = Annotated[
    str | None,
    typer.Option(
        help="SAM: nano, sam_vit_b, _l, _h, or SAM 2: sam2_hiera_t, _s, _b+, _l, likewise sam2.1_. "
        "Default: what --sam fits."
    ),
]
UNet = Annotated[
    str | None,
    typer.Option(help="U-Net: nano, sd15, sd21. Default: what --sd fits, or the preset's."),
]
Saved = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        rich_help_panel=WEIGHTS,
        help="All weights in one piece: a folder from glesam-train, or a packed .safetensors.",
    ),
]
Sam = Annotated[
    Path | None,
    typer.Option(rich_help_panel=WEIGHTS, help="SAM's weights (.pth, .pt, .safetensors)."),
]
Sd = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Stable Diffusion: a diffusers folder, or its U-Net's weights with --unet-config.",
    ),
]
UNetConfig = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=WEIGHTS, help="config.json of a U-Net that is given as bare weights."
    ),
]
Lora = Annotated[
    Path | None, typer.Option(rich_help_panel=WEIGHTS, help="The U-Net's LoRA (.safetensors).")
]
PromptEmbeds = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Text embedding [1,77,D] (.npy, .safetensors). Default: the folder's encoder on ''.",
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Adaption weight the LoRA was trained with: 5 in the paper, 3 or 5 in released code.",
    ),
]
Timestep = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Timestep the LoRA was trained with: 999 in the paper, 1 in released code.",
    ),
]
RandomWeights = Annotated[
    int | None,
    typer.Option(rich_help_panel=WEIGHTS, metavar="SEED", help="Random weights, for development."),
]


@dataclass(frozen=True)
class WeightOptions:
    """The weight options as given; None where one was not.

    Attributes:
        preset: the SAM's name.
        unet: the U-Net's name; None is the preset's own.
        sam: SAM's weights.
        sd: a diffusers folder.
        lora: the U-Net's adapters.
        prompt_embeds: the text embedding.
        gamma: adaption weight.
        timestep: T.
        random_weights: a seed.
        checkpoint: all of the above in one piece.
        unet_config: config.json of a U-Net that `sd` is the bare weights of.
    """

    preset: Preset = None
    unet: UNet = None
    sam: Sam = None
    sd: Sd = None
    lora: Lora = None
    prompt_embeds: PromptEmbeds = None
    gamma: Gamma = None
    timestep: Timestep = None
    random_weights: RandomWeights = None
    checkpoint: Saved = None
    unet_config: UNetConfig = None

    @property
    def given_files(self) -> list[str]:
        """The file options that were given."""
        files = {
            "--sam": self.sam,
            "--sd": self.sd,
            "--lora": self.lora,
            "--prompt-embeds": self.prompt_embeds,
            "--unet-config": self.unet_config,
        }
        return [name for name, path in files.items() if path is not None]

    @property
    def given_weights(self) -> list[str]:
        """The options that were given and say where weights come from."""
        others = {"--checkpoint": self.checkpoint, "--random-weights": self.random_weights}
        return [name for name, value in others.items() if value is not None] + self.given_files
