"""The nano bundle, exported once a session from random weights, and the checkpoint behind it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint

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
