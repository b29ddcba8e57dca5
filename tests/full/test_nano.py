"""The two-minute version of `make nano` works, and the shipped nano passes fp16's gate."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from glesam_export.checkpoints.formats import open_checkpoint
from glesam_training.nano.recipe import RECIPES
from glesam_training.nano.steps import make_nano

pytestmark = pytest.mark.full


@pytest.mark.parametrize(("preset", "most"), [("nano", 12e6), ("nano2", 13e6)])
def test_every_loss_falls(preset: str, most: float, tmp_path: Path) -> None:
    recipe = RECIPES[preset, True]
    losses: dict[str, list[float]] = defaultdict(list)

    def show(step: str, done: int, total: int, found: Mapping[str, float]) -> None:
        if found:
            # Degraded pictures differ more from batch to batch than seconds of training change, so
            # the enhancer is judged by the share of the latent's error that it leaves.
            share = found["mse"] / found["mse_before"] if "mse" in found else found["loss"]
            losses[step].append(share)

    packed = make_nano(tmp_path, recipe, 0, show)
    print({step: [round(value, 4) for value in values] for step, values in losses.items()})
    sams = {"SAM-nano", "SAM-nano, varied"}
    assert set(losses) == sams | {"base U-Net", "enhancer", "decoder", "background"}
    # A decoder trained for seconds is too bad for one embedding to matter; test_train.py
    # tests this step on the shipped decoder.
    losses.pop("background")
    for step, values in losses.items():
        assert min(values[1:]) < values[0], step
        assert values[-1] < values[0], step
    checkpoint = open_checkpoint(packed)
    assert checkpoint.trained
    assert checkpoint.preset.name == preset
    assert packed.stat().st_size < most

    again = make_nano(tmp_path, recipe, 0, show)
    assert again == packed, "found, not made again"


@pytest.mark.parametrize(("preset", "more"), [("nano", []), ("nano2", ["--auto-islands"])])
def test_what_ships_is_exported_in_fp16(preset: str, more: list[str], tmp_path: Path) -> None:
    """Check that what ships passes its gate, which a new training once broke.

    One of nano2's masks is so small that a pixel decides its IoU, so it needs more islands.
    """
    asked = ["onnx", "--preset", preset, "--fp16", *more, "-o", str(tmp_path / "bundle")]
    done = subprocess.run(
        [sys.executable, "-m", "glesam_export", *asked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
