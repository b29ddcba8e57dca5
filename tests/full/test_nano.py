"""The two-minute version of `make nano`: every step runs, every loss falls, a bundle comes out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from glesam_export.checkpoints.saved import open_checkpoint
from glesam_training.nano.recipe import QUICK, make_nano

pytestmark = pytest.mark.full


def test_every_loss_falls(tmp_path: Path) -> None:
    losses: dict[str, list[float]] = defaultdict(list)

    def narrate(step: str, done: int, total: int, found: Mapping[str, float]) -> None:
        if found:
            # Degraded pictures differ more from batch to batch than seconds of training change, so
            # the enhancer is judged by what share of the latent's error it leaves.
            share = found["mse"] / found["mse_before"] if "mse" in found else found["loss"]
            losses[step].append(share)

    packed = make_nano(tmp_path, QUICK, 0, narrate)
    print({step: [round(value, 4) for value in values] for step, values in losses.items()})
    assert set(losses) == {"SAM-nano", "SAM-nano, varied", "base U-Net", "enhancer", "decoder"}
    for step, values in losses.items():
        assert min(values[1:]) < values[0], step
        assert values[-1] < values[0], step
    checkpoint = open_checkpoint(packed)
    assert checkpoint.trained
    assert packed.stat().st_size < 12e6

    again = make_nano(tmp_path, QUICK, 0, narrate)
    assert again == packed, "found, not made again"
