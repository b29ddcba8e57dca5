"""`--as-released` sets what the released code sets, says so, and gives way to single options."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torchvision.ops import sigmoid_focal_loss

from glesam_export.checkpoints.formats import open_checkpoint
from glesam_export.checkpoints.packed_file import pack
from glesam_runtime.errors import CheckpointError
from glesam_training.objectives import FOCAL_ALPHA, LossWeights, dice_loss, mask_loss
from glesam_training.saved_state import STATE_FILE

from ..released import Released

Run = Callable[..., tuple[int, str, str]]
FAST = ("--iterations", "1", "--workers", "0", "--masks", "1")


def files(given: Released) -> list[object]:
    return [
        *("--sam", given.sam, "--sd", given.sd, "--prompt-embeds", given.prompt_embeds),
        *("--preset", "nano", "--gamma", "5"),
    ]


def note(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("note: --as-released sets")]
    return line.removeprefix("note: --as-released sets ")


def record(folder: Path) -> dict[str, str]:
    state = torch.load(folder / STATE_FILE, weights_only=True)
    return {name: words for name, (_, words) in state["made_of"].items()}


def test_stage_1(train: Run, released: Released, tmp_path: Path) -> None:
    made = tmp_path / "one"
    call = ["enhancer", "scenes:1", "-o", made, *files(released), *FAST, "--as-released"]
    code, _, err = train(*call)
    assert code == 0, err
    assert note(err) == (
        "--recipe released, --levels drawn, --batch 1, --loss-weights 1:1, --warmup 500, "
        "--timestep 1, --input released, --rank 64, --alpha 8"
    )
    checkpoint = open_checkpoint(made)
    assert (checkpoint.timestep, checkpoint.preset.input) == (1, "released")
    facts = record(made)
    assert facts["--loss-weights"] == "1:1 (background pixels 0.25)"
    assert (facts["--warmup"], facts["--rank"], facts["--alpha"]) == ("500", "64", "8")
    assert (facts["--recipe"], facts["--levels"]) == ("released", "drawn")
    path = made / "pytorch_lora_weights.safetensors"
    assert {len(a) for name, a in load_file(path).items() if "lora_A" in name} == {64}
    with safe_open(path, "pt") as lora:
        header = json.loads(lora.metadata()["lora_adapter_metadata"])
    assert (header["unet.r"], header["unet.lora_alpha"]) == (64, 8)

    code, _, err = train(
        *("decoder", "scenes:1", "-o", tmp_path / "two", "--checkpoint", made, "--all"),
        *(*FAST, "--as-released", "--loss-weights", "2:3"),
    )
    assert code == 0, err
    assert note(err) == "--recipe released, --levels drawn, --batch 1", "no warm-up, no adapters"
    assert record(tmp_path / "two")["--loss-weights"] == "2:3 (background pixels 0.25)"
    assert open_checkpoint(tmp_path / "two").preset.input == "released", "the checkpoint's own"


def test_single_options_win(train: Run, released: Released, tmp_path: Path) -> None:
    given = ["--rank", 8, "--warmup", 0, "--timestep", 2, "--levels", "1,2", "--batch", 2]
    call = ["enhancer", "scenes:1", "-o", tmp_path, *files(released), *FAST, "--as-released"]
    code, _, err = train(*call, *given, "--recipe", "paper", "--input", "sam", "--alpha", 4)
    assert code == 0, err
    assert note(err) == "--loss-weights 1:1"
    facts = record(tmp_path)
    assert (facts["--rank"], facts["--alpha"], facts["--warmup"]) == ("8", "4", "0")
    assert facts["--levels"] == "1,2"
    assert facts["--timestep"].startswith("2 ")


def test_the_mask_loss_is_the_released_one() -> None:
    """Dice and a focal loss that multiplies every pixel by 0.25, one to one."""
    generator = torch.Generator().manual_seed(0)
    logits = 4 * torch.randn(3, 8, 8, generator=generator, dtype=torch.float64)
    target = (torch.rand(3, 8, 8, generator=generator) < 0.3).double()
    focal = 0.25 * sigmoid_focal_loss(logits, target, alpha=-1, gamma=2).mean((-2, -1))
    found = mask_loss(logits, target, weights=LossWeights(1, 1, FOCAL_ALPHA))
    torch.testing.assert_close(found, dice_loss(logits, target) + focal)
    usual = sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2).mean((-2, -1))
    found = mask_loss(logits, target, weights=LossWeights(2, 3))
    torch.testing.assert_close(found, 2 * dice_loss(logits, target) + 3 * usual)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--loss-weights 1", "--loss-weights 1: pass the weights of Dice and the focal loss as"),
        ("--loss-weights 0:0", "--loss-weights 0:0:"),
        ("--loss-weights=-1:2", "--loss-weights -1:2:"),
        ("--loss-weights 1:nan", "--loss-weights 1:nan:"),
        ("--loss-weights 1:2:3", "--loss-weights 1:2:3:"),
        ("--warmup -1", "--warmup"),
        ("--alpha 0", "--alpha 0: must be a positive number"),
        ("--alpha inf", "--alpha inf: must be a positive number"),
        ("--lora x --alpha 8", "--alpha 8: goes with a new LoRA"),
        ("--lora x --rank 4", "--rank 4: goes with a new LoRA"),
        ("--mask-loss inf", "--mask-loss inf: must be a finite number"),
        ("--prediction-type v_prediction", "epsilon"),
        ("--as-released --levels drawn --recipe paper", "--levels drawn: the paper's recipe"),
    ],
)
def test_wrong_options(
    options: str, words: str, train: Run, released: Released, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    call = ["enhancer", "scenes:1", "-o", out, *files(released), "--timestep", 1, *options.split()]
    refused(train(*call), words)
    assert not out.exists()
    out.touch()
    refused(train("enhancer", "scenes:1", "-o", out, *files(released)), "is a file, a folder is")


def refused(result: tuple[int, str, str], words: str) -> None:
    code, _, err = result
    assert code == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert words in line


def test_a_base_that_predicts_something_else(
    train: Run, released: Released, tmp_path: Path
) -> None:
    """It is refused unless it is asked for. Then the checkpoint and its followers say so."""
    sd = shutil.copytree(released.sd, tmp_path / "v")
    scheduler = sd / "scheduler" / "scheduler_config.json"
    schedule = json.loads(scheduler.read_text()) | {"prediction_type": "v_prediction"}
    scheduler.write_text(json.dumps(schedule))
    given = [*files(released), "--timestep", 1, "--sd", sd, *FAST]
    one = tmp_path / "one"
    refused(train("enhancer", "scenes:1", "-o", one, *given), "pass --prediction-type epsilon if")
    assert not (one / "checkpoint.json").exists()

    asked = [*given, "--prediction-type", "epsilon"]
    code, _, err = train("enhancer", "scenes:1", "-o", one, *asked, "--loss-weights", "1:1")
    assert code == 0, err
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2, err
    assert "--loss-weights 1:1: has no effect without --mask-loss" in warnings[0]
    assert "says v_prediction; the enhancer reads" in warnings[1]
    assert record(one)["--prediction-type"] == "epsilon instead of v_prediction"
    described = json.loads((one / "checkpoint.json").read_text())
    assert described["prediction_type"] == "epsilon"
    two = tmp_path / "two"
    code, _, err = train("decoder", "scenes:1", "-o", two, "--checkpoint", one, "--tokens", *FAST)
    assert code == 0, err
    assert json.loads((two / "checkpoint.json").read_text())["prediction_type"] == "epsilon"
    pack(open_checkpoint(two), tmp_path / "packed.safetensors", torch.float32)
    again = open_checkpoint(tmp_path / "packed.safetensors")
    z = torch.randn(1, 256, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(again.enhancer()(z), open_checkpoint(one).enhancer()(z))

    del described["prediction_type"]
    (one / "checkpoint.json").write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="prediction_type is 'v_prediction'"):
        open_checkpoint(one)
