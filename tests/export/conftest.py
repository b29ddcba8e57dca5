"""A nano checkpoint written out in the formats users hold, and the command line in process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

from glesam_export.checkpoints import write
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.presets import sam_preset, unet_preset
from glesam_export.reference import ADAPTER, build_unet


@dataclass(frozen=True)
class Released:
    """Files of one GleSAM, as a user would have them."""

    sam: Path
    sd: Path
    lora: Path
    prompt_embeds: Path

    def options(self) -> list[str]:
        """The command line's weight options."""
        return (
            f"--sam {self.sam} --sd {self.sd} --lora {self.lora} "
            f"--prompt-embeds {self.prompt_embeds} --gamma 5 --timestep 999"
        ).split()


def random_nano(seed: int = 0, gamma: float = 5.0, timestep: int = 999) -> RandomCheckpoint:
    return RandomCheckpoint(seed, sam_preset("nano"), unet_preset("nano"), gamma, timestep)


def random_nano2(seed: int = 0) -> RandomCheckpoint:
    return RandomCheckpoint(seed, sam_preset("nano2"), unet_preset("nano"), 5.0, 999)


def write_released(folder: Path, checkpoint: RandomCheckpoint) -> Released:
    """Meta's .pth, a diffusers folder, a diffusers LoRA file and a text embedding."""
    folder.mkdir(parents=True)
    released = Released(
        folder / "sam.pth", folder / "sd", folder / "lora.safetensors", folder / "c.safetensors"
    )
    write.save_sam(released.sam, checkpoint.encoder(), checkpoint.decoder())
    enhancer = checkpoint.enhancer()
    lora = {}  # in the older style; save_lora writes the newer
    for name, layer in enhancer.unet.named_modules():
        if isinstance(layer, LoraLayer):
            lora[f"unet.{name}.lora.down.weight"] = layer.lora_A[ADAPTER].weight
            lora[f"unet.{name}.lora.up.weight"] = layer.lora_B[ADAPTER].weight
    four = build_unet(checkpoint.unet, channels=4)
    four.load_state_dict(write.base_state(enhancer.unet))
    four.save_pretrained(released.sd / "unet")
    scheduler = released.sd / "scheduler" / "scheduler_config.json"
    scheduler.parent.mkdir()
    scheduler.write_text(
        json.dumps(
            {
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "beta_schedule": "scaled_linear",
                "num_train_timesteps": 1000,
            }
        )
    )
    save_file({name: t.contiguous() for name, t in lora.items()}, released.lora)
    write.save_prompt_embeds(released.prompt_embeds, enhancer.text)
    return released


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """The nano checkpoint of seed 0 as files; read-only."""
    return write_released(tmp_path_factory.mktemp("released") / "files", random_nano())


@pytest.fixture(scope="session")
def released2(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """The nano2 checkpoint of seed 0 as files; read-only."""
    return write_released(tmp_path_factory.mktemp("released2") / "files", random_nano2())


@pytest.fixture
def released_copy(tmp_path: Path) -> Released:
    """Files of the test's own to spoil."""
    return write_released(tmp_path / "files", random_nano())


@pytest.fixture
def glesam_export(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `glesam-export` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from glesam_export.cli import app
        from glesam_runtime.console import exit_code_of

        capsys.readouterr()
        code = exit_code_of(app, "glesam-export", [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run
