"""Provide a nano checkpoint in the file formats of users, and the command line in process."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.bundle import open_bundle
from glesam_runtime.manifest import MANIFEST_FILE, STAGES
from glesam_runtime.manifest_file import dump

from ..released import Released, write_released
from ..traced import Traced


def random_nano(seed: int = 0, gamma: float = 5.0, timestep: int = 999) -> RandomCheckpoint:
    return RandomCheckpoint(seed, sam_preset("nano"), unet_preset("nano"), gamma, timestep)


def random_nano2(seed: int = 0) -> RandomCheckpoint:
    return RandomCheckpoint(seed, sam_preset("nano2"), unet_preset("nano"), 5.0, 999)


def relative(actual: Tensor, expected: Tensor) -> float:
    """Return the relative L2 error."""
    return float((actual - expected).norm() / expected.norm())


def read(path: Path, option: str) -> dict[str, Tensor]:
    """Read the tensors of a file."""
    return TensorFile(path, option).read()


@pytest.fixture
def no_gradients() -> Iterator[None]:
    """Disable gradients, and seed torch so that random tensors repeat."""
    with torch.no_grad():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Write the nano checkpoint of seed 0 as files; tests must not change them."""
    return write_released(tmp_path_factory.mktemp("released") / "files", random_nano())


@pytest.fixture(scope="session")
def released2(tmp_path_factory: pytest.TempPathFactory) -> Released:
    """Write the nano2 checkpoint of seed 0 as files; tests must not change them."""
    return write_released(tmp_path_factory.mktemp("released2") / "files", random_nano2())


@pytest.fixture
def released_copy(released: Released, tmp_path: Path) -> Released:
    """Return a copy of the files, which a test may damage."""
    whole = released.sam.parent
    copy = Path(shutil.copytree(whole, tmp_path / "files"))
    moved = {
        name: copy / getattr(released, name).relative_to(whole)
        for name in ("sam", "sd", "lora", "prompt_embeds")
    }
    return dataclasses.replace(released, **moved)


@pytest.fixture
def glesam_export(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run `glesam-export` in this process; return exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        from glesam_export.cli import app
        from glesam_runtime.console import exit_code_of

        capsys.readouterr()
        code = exit_code_of(app, "glesam-export", [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="session")
def nano16_bundle(
    nano_bundle: Path, traced: Traced, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make the nano bundle of seed 0 with fp16 graphs, but with fp32's golden file and figures."""
    folder = tmp_path_factory.mktemp("nano16") / "bundle"
    folder.mkdir()
    source = open_bundle(nano_bundle)
    shutil.copyfile(source.golden_path, folder / source.golden_path.name)
    made = {s: traced.export_stage(random_nano(), s, "fp16", 1, folder) for s in STAGES}
    manifest = replace(source.manifest, stages=made)
    (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return folder
