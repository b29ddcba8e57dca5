"""glesam-train from the command line: files in, a checkpoint out, one line per error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from glesam_export.checkpoints.formats import open_checkpoint
from glesam_export.checkpoints.packed_file import pack

from ..export.conftest import random_nano
from ..released import Released

Run = Callable[..., tuple[int, str, str]]

FAST = ["--iterations", "2", "--batch", "2", "--workers", "0", "--masks", "2"]


def weights(files: Released, *without: str) -> list[str]:
    given = {
        "--preset": "nano",
        "--sam": files.sam,
        "--sd": files.sd,
        "--prompt-embeds": files.prompt_embeds,
        "--gamma": 0.5,
        "--timestep": 1,
    }
    return [
        str(word) for name, value in given.items() if name not in without for word in (name, value)
    ]


def refused(result: tuple[int, str, str], *words: str) -> None:
    code, _, err = result
    assert code == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line


def test_both_stages(train: Run, released: Released, tmp_path: Path) -> None:
    """Stage 1 makes new adapters, stage 2 continues from them, and export reads the result."""
    code, out, err = train(
        "enhancer", "scenes:3", "-o", tmp_path / "one", *weights(released), *FAST, "--rank", 4
    )
    assert code == 0, err
    assert "one" in out
    assert "mse_before" in err
    first = open_checkpoint(tmp_path / "one")
    lora = load_file(tmp_path / "one" / "pytorch_lora_weights.safetensors")
    assert {t.shape[0] for name, t in lora.items() if "lora_A" in name} == {4}
    assert any(bool(t.any()) for name, t in lora.items() if "lora_B" in name), "B was learnt"

    code, _, err = train(
        "decoder",
        "scenes:3",
        "-o",
        tmp_path / "two",
        "--checkpoint",
        tmp_path / "one",
        "--tokens",
        *FAST,
    )
    assert code == 0, err
    second = open_checkpoint(tmp_path / "two")
    before, after = torch.load(released.sam), torch.load(tmp_path / "two" / "sam.pth")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"mask_decoder.mask_tokens.weight"}
    x = torch.randn(1, 256, 16, 16)
    assert torch.equal(first.enhancer()(x), second.enhancer()(x))
    shutil.rmtree(tmp_path / "one")
    assert open_checkpoint(tmp_path / "two").gamma == 0.5, "it needs nothing of the first"


def test_both_stages_take_a_u_nets_weights_alone(
    train: Run, released: Released, tmp_path: Path
) -> None:
    """--unet-config reaches the checkpoint: with a diffusers folder it is refused."""
    given = [*weights(released), "--lora", released.lora, "--unet-config", "config.json"]
    for stage in (["enhancer"], ["decoder", "--all"]):
        refused(train(*stage, "scenes:3", "-o", tmp_path / "x", *given), "--unet-config")
    bare = released.sd / "unet" / "diffusion_pytorch_model.safetensors"
    alone = [*weights(released, "--sd"), "--sd", bare, "--lora", released.lora, "--lora-alpha", 8]
    alone += ["--unet-config", released.sd / "unet" / "config.json"]
    code, _, err = train("decoder", "--all", "scenes:3", "-o", tmp_path / "alone", *alone, *FAST)
    assert code == 0, err
    assert open_checkpoint(tmp_path / "alone").timestep == 1


def test_a_packed_checkpoint_stays_packed(train: Run, tmp_path: Path) -> None:
    pack(random_nano(0, 0.5, 1), tmp_path / "nano.safetensors", torch.float32)
    code, out, err = train(
        *("decoder", "scenes:3", "-o", tmp_path / "ft", "--all", *FAST),
        *("--checkpoint", tmp_path / "nano.safetensors"),
    )
    assert code == 0, err
    assert "checkpoint.safetensors" in out
    assert open_checkpoint(tmp_path / "ft" / "checkpoint.safetensors").timestep == 1


def test_on_pictures_from_a_folder(train: Run, released: Released, tmp_path: Path) -> None:
    for name in "ab":
        Image.fromarray(np.full((40, 60, 3), 120, np.uint8)).save(tmp_path / f"{name}.jpg")
        mask = np.zeros((40, 60), np.uint8)
        mask[10:30, 20:50] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}_mask.png")
    code, _, err = train(
        *("enhancer", tmp_path, "-o", tmp_path / "out", *weights(released), *FAST),
        *("--keep-latents", tmp_path / "latents", "--mask-loss", 0.5),
    )
    assert code == 0, err
    assert list((tmp_path / "latents").glob("*.npy"))


def test_another_run_in_the_same_folder(train: Run, released: Released, tmp_path: Path) -> None:
    call = ("enhancer", "scenes:3", "-o", tmp_path / "run", *weights(released), *FAST)
    assert train(*call)[0] == 0
    stamp = (tmp_path / "run" / "state.pt").stat().st_mtime_ns
    assert train(*call)[0] == 0
    assert (tmp_path / "run" / "state.pt").stat().st_mtime_ns == stamp, "nothing was left to do"
    refused(train(*call, "--lr", "0.5"), "state.pt", "lr", "remove it")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--lr 0", ["--lr 0", "positive"]),
        ("--lr nan", ["--lr nan", "positive"]),
        ("--levels 1,5", ["--levels 1,5", "0 (clear)"]),
        ("--levels drawn", ["--levels drawn", "--recipe released"]),
        ("--recipe real", ["recipe 'real'", "released-test"]),
        ("--mixed-precision int8", ["--mixed-precision int8", "bf16"]),
        ("--gamma -1", ["--gamma -1", "positive"]),
        ("--timestep 1000", ["--timestep 1000", "999"]),
        ("--iterations 0", ["iterations"]),
        ("--preset sam_vit_b --unet nano", ["nano", "sam_vit_b"]),
    ],
)
def test_wrong_options(
    options: str, words: list[str], train: Run, released: Released, tmp_path: Path
) -> None:
    names = [word for word in options.split() if word.startswith("--")]
    call = [*weights(released, *names), *options.split()]
    refused(train("enhancer", "scenes:2", "-o", tmp_path / "out", *call), *words)
    assert not (tmp_path / "out" / "checkpoint.json").exists()


def test_no_weights(train: Run, tmp_path: Path) -> None:
    refused(train("enhancer", "scenes:2", "-o", tmp_path / "out"), "no weights", "--checkpoint")
    refused(train("decoder", "scenes:2", "-o", tmp_path / "out", "--all"), "--checkpoint")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("which", [[], ["--tokens", "--all"]])
def test_which_part(which: list[str], train: Run, tmp_path: Path) -> None:
    call = ("decoder", "scenes:2", "-o", tmp_path / "o", "--checkpoint", tmp_path, *which)
    refused(train(*call), "--tokens", "--all")


def test_data_that_cannot_be_used(train: Run, released: Released, tmp_path: Path) -> None:
    def call(data: Path) -> tuple[int, str, str]:
        return train("enhancer", data, "-o", tmp_path / "out", *weights(released), *FAST)

    refused(call(tmp_path / "none"), "no such folder or file")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(call(empty), str(empty))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(empty / "a.jpg")
    refused(call(empty), "a.jpg", "mask")
    Image.fromarray(np.full((8, 9), 255, np.uint8)).save(empty / "a_mask.png")
    refused(call(empty), "a_mask.png", "9")
    (empty / "wrong.json").write_text("{}")
    refused(call(empty / "wrong.json"), "wrong.json")


def test_a_checkpoint_that_does_not_fit(train: Run, released: Released, tmp_path: Path) -> None:
    state = torch.load(released.sam)
    state.pop("mask_decoder.iou_token.weight")
    torch.save(state, tmp_path / "broken.pth")
    call = [*weights(released, "--sam"), "--sam", tmp_path / "broken.pth"]
    refused(
        train("enhancer", "scenes:2", "-o", tmp_path / "out", *call),
        "broken.pth",
        "mask_decoder.iou_token.weight",
    )
    save_file({"unet.nothing.lora_A.weight": torch.ones(2, 2)}, tmp_path / "lora.safetensors")
    call = [*weights(released), "--lora", tmp_path / "lora.safetensors"]
    refused(train("enhancer", "scenes:2", "-o", tmp_path / "out", *call), "lora.safetensors")
