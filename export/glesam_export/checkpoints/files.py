"""A checkpoint made of the user's own files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glesam_export.checkpoints import diffusion, text
from glesam_export.checkpoints import tensors as files
from glesam_export.checkpoints.states import Part, State, StateCheckpoint, source
from glesam_export.presets import Preset, UNetPreset
from glesam_runtime.manifest import Source


@dataclass(frozen=True)
class WeightFiles:
    """The files a GleSAM is made of.

    Attributes:
        sam: SAM's or SAM 2's state dict, Meta's or fine-tuned.
        sd: a diffusers folder of the U-Net's base, or a file of its U-Net's weights alone.
        lora: the U-Net's adapters.
        prompt_embeds: [1, 77, D]; None runs the folder's text encoder on "".
        unet_config: config.json of a U-Net that is a file alone.
    """

    sam: Path
    sd: Path
    lora: Path
    prompt_embeds: Path | None = None
    unet_config: Path | None = None


class FileCheckpoint(StateCheckpoint):
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
        preset: Preset,
        unet: UNetPreset,
        gamma: float,
        timestep: int,
    ) -> None:
        self.weights, self.preset, self.unet = weights, preset, unet
        self.gamma, self.timestep = gamma, timestep
        base = diffusion.open_base(weights.sd, weights.unet_config, unet)
        self.schedule, self.unet_file = base.schedule, base.weights
        self.alpha_bar = diffusion.alpha_bar(timestep, self.schedule, base.schedule_from)
        self.check_parts()
        # Kept because a text encoder, unlike its result, is not small.
        if weights.prompt_embeds is None:
            self.text_source = ("text_encoder", text.weight_file(weights.sd))
            self.text = text.encode_empty_prompt(weights.sd, unet)
        else:
            self.text_source = ("prompt_embeds", weights.prompt_embeds)
            self.text = text.read(weights.prompt_embeds, unet)

    def state(self, part: Part) -> State:
        """The tensors of the file that holds this part."""
        option, path = {
            "sam": ("--sam", self.weights.sam),
            "unet": ("--sd", self.unet_file),
            "lora": ("--lora", self.weights.lora),
        }[part]
        return State(files.read(path, option), f"{option} {path}")

    def sources(self) -> tuple[Source, ...]:
        """Every file of tensors, hashed."""
        paths = (
            ("sam", self.weights.sam),
            ("unet", self.unet_file),
            ("lora", self.weights.lora),
            self.text_source,
        )
        return tuple(source(role, path) for role, path in paths)
