"""Bundles exported once a session, a small and a full-size one, and what is behind them."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint

# Property tests draw the same examples every time: a failure is a failure for everyone.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

NANO_SEED, NANO_GAMMA, NANO_TIMESTEP = 0, 5.0, 999


@pytest.fixture(scope="session")
def nano_checkpoint() -> Checkpoint:
    """The smallest GleSAM, random weights."""
    from glesam_export.checkpoints.random import RandomCheckpoint
    from glesam_export.presets import sam_preset, unet_preset

    return RandomCheckpoint(
        NANO_SEED, sam_preset("nano"), unet_preset("nano"), NANO_GAMMA, NANO_TIMESTEP
    )


@pytest.fixture(scope="session")
def nano_bundle(nano_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its fp32 bundle, verified on export; read-only for all tests."""
    from glesam_export.build import Options, build_bundle

    folder = tmp_path_factory.mktemp("nano") / "bundle"
    build_bundle(nano_checkpoint, folder, Options(), lambda _: nullcontext())
    return folder


@dataclass(frozen=True)
class FullExport:
    """A full-size bundle made by the command line in a process of its own, and what it took."""

    checkpoint: Checkpoint
    bundle: Path
    printed: str
    seconds: float
    peak_rss: int
    """Bytes."""


def _export_full(folder: Path, *options: str) -> FullExport:
    """ViT-B with SD 2.1 from random weights, through `glesam-export onnx`."""
    from glesam_export.checkpoints.random import RandomCheckpoint
    from glesam_export.presets import sam_preset, unet_preset

    command = ["onnx", "--preset", "sam_vit_b", "--unet", "sd21", "--random-weights", "0"]
    program = [sys.executable, "-m", "glesam_export", *command, *options, "-o", str(folder)]
    start = time.perf_counter()
    finished = subprocess.run(program, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    assert finished.returncode == 0, finished.stdout + finished.stderr
    # The largest child so far; full-size exports are this suite's largest by far.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    checkpoint = RandomCheckpoint(0, sam_preset("sam_vit_b"), unet_preset("sd21"), 5.0, 999)
    return FullExport(checkpoint, folder, finished.stderr + finished.stdout, seconds, peak)


@pytest.fixture(scope="session")
def export_full() -> Callable[..., FullExport]:
    """Export to a folder, with further options."""
    return _export_full


@pytest.fixture(scope="session")
def vit_b_export(tmp_path_factory: pytest.TempPathFactory) -> FullExport:
    """The full-size bundle in fp32."""
    return _export_full(tmp_path_factory.mktemp("full") / "vit_b")
