"""What people pass as --sam by mistake is refused by one true line that says what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from glesam_export.checkpoints.formats import detect_sam, identify
from glesam_export.checkpoints.separate_files import OpenedFiles
from glesam_runtime.errors import CheckpointError

from ..released import Released


def optimizer() -> dict[str, Any]:
    weight = torch.nn.Parameter(torch.ones(2))
    made = torch.optim.AdamW([weight])
    weight.grad = torch.ones(2)
    made.step()
    return made.state_dict()


def pickled(value: object) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(value, folder / "m.pth")
        return folder / "m.pth"

    return write


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def empty_safetensors(folder: Path) -> Path:
    save_file({}, folder / "m.safetensors")
    return folder / "m.safetensors"


def truncated(folder: Path) -> Path:
    save_file({"image_encoder.pos_embed": torch.ones(64)}, folder / "m.safetensors")
    content = (folder / "m.safetensors").read_bytes()
    (folder / "m.safetensors").write_bytes(content[:-100])
    return folder / "m.safetensors"


PROCESSOR = json.dumps({"image_processor_type": "SamImageProcessor"}).encode()


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (pickled({}), "holds no state dict but an empty one"),
        (pickled([]), "holds no state dict but a list"),
        (pickled([torch.ones(2)]), "holds no state dict but a list"),
        (pickled(torch.ones(2, 3)), "holds no state dict but a Tensor"),
        (pickled(optimizer()), "holds no tensors by name, only state, param_groups"),
        (pickled({"optimizer": optimizer(), "epoch": 3}), "by name, only optimizer, epoch"),
        (pickled({"state_dict": {"w": torch.ones(2)}}), "but a single tensor of shape [2]"),
        (empty_safetensors, "holds no tensors; fetch or save it again"),
        (truncated, "not a .safetensors file or truncated"),
        (raw("m.pth", b"hello, no checkpoint\n"), "it begins with b'hello, no checkpoint\\n'"),
        (raw("m.pth", b""), "an empty file"),
        (raw("preprocessor_config.json", PROCESSOR), "a JSON file without weights; pass the file"),
        (lambda folder: folder, "a folder without a SAM's weights: none of model.safetensors"),
    ],
)
def test_no_sam(write: Callable[[Path], Path], words: str, tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        detect_sam(OpenedFiles(path, None, None).sam)
    assert str(caught.value).startswith(f"--sam {path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_unet_a_lora_and_a_sd_folder(released: Released) -> None:
    unet = released.sd / "unet" / "diffusion_pytorch_model.safetensors"
    for path, words in (
        (unet, "not SAM's weights but a U-Net nano, weights alone"),
        (released.lora, "not SAM's weights but a LoRA of 117 layers"),
        (released.sd, "a folder without a SAM's weights"),
    ):
        with pytest.raises(CheckpointError) as caught:
            detect_sam(OpenedFiles(path, None, None).sam)
        assert f"--sam {path}: {words}" in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "configuration of SamImageProcessor, "),
        ({"model_type": "sam2_video"}, "configuration of sam2_video, which holds no weights"),
        ({"_class_name": "DDPMScheduler"}, "configuration of DDPMScheduler, "),
        ({"peft_type": "LORA"}, "configuration of LORA, "),
    ],
)
def test_a_json_file_is_not_called_a_unet(
    config: dict[str, str], words: str, tmp_path: Path
) -> None:
    (tmp_path / "c.json").write_text(json.dumps(config))
    found = identify(tmp_path / "c.json")
    assert found.kind == "other"
    assert words in found.words
