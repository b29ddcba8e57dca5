"""Write a checkpoint in the file formats that users have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from glesam_export.checkpoints import Checkpoint, write
from glesam_export.enhancer.reference import ADAPTER, build_unet


@dataclass(frozen=True)
class Diffusion:
    """The files of an enhancer: a diffusers folder, its adapters and the text embedding."""

    sd: Path
    lora: Path
    prompt_embeds: Path


@dataclass(frozen=True)
class Released:
    """The files of one GleSAM, as a user has them."""

    sam: Path
    sd: Path
    lora: Path
    prompt_embeds: Path
    gamma: float = 5.0
    timestep: int = 999

    def options(self) -> list[str]:
        """Return the weight options for the command line."""
        return [
            *("--sam", str(self.sam), "--sd", str(self.sd), "--lora", str(self.lora)),
            *("--prompt-embeds", str(self.prompt_embeds)),
            *("--gamma", f"{self.gamma:g}", "--timestep", str(self.timestep)),
            *("--lora-alpha", "8"),  # the released trainer leaves it out
        ]


def write_released(folder: Path, checkpoint: Checkpoint) -> Released:
    """Write Meta's .pth, a diffusers folder, a diffusers LoRA file and a text embedding."""
    folder.mkdir(parents=True)
    files = write_diffusion(folder, checkpoint)
    sam = write_sam(folder / "sam.pth", checkpoint)
    pair = checkpoint.gamma, checkpoint.timestep
    return Released(sam, files.sd, files.lora, files.prompt_embeds, *pair)


def write_sam(path: Path, checkpoint: Checkpoint) -> Path:
    """Write Meta's .pth, or .pt for SAM 2."""
    write.save_sam(path, checkpoint.preset, checkpoint.encoder(), checkpoint.decoder())
    return path


def write_diffusion(folder: Path, checkpoint: Checkpoint) -> Diffusion:
    """Write a diffusers folder, a LoRA file in the older key style, and a text embedding."""
    files = Diffusion(folder / "sd", folder / "lora.safetensors", folder / "c.safetensors")
    enhancer = checkpoint.enhancer()
    lora = {}
    for name, layer in enhancer.unet.named_modules():
        if isinstance(layer, LoraLayer):
            lora[f"unet.{name}.lora.down.weight"] = layer.lora_A[ADAPTER].weight
            lora[f"unet.{name}.lora.up.weight"] = layer.lora_B[ADAPTER].weight
    save_file({name: t.contiguous() for name, t in lora.items()}, files.lora)
    write.save_prompt_embeds(files.prompt_embeds, enhancer.text)
    four = build_unet(checkpoint.unet, channels=4)
    four.load_state_dict(write.base_state(enhancer.unet))
    four.save_pretrained(files.sd / "unet")
    scheduler = files.sd / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir()
    schedule = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
    }
    scheduler.write_text(json.dumps(schedule))
    return files
