"""Bundles exported once a session, a small and a full-size one, and what is behind them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint

    from .full_size import FullExport
    from .released import Diffusion

# Property tests draw the same examples every time: a failure is a failure for everyone.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

NANO_SEED, NANO_GAMMA, NANO_TIMESTEP = 0, 5.0, 999


def pytest_runtest_setup() -> None:
    """What torch draws is the same in every run, whichever tests came before."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is remembered of engines is not the developer's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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


def _assert_same_records(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Match mask generators' records one to one, in any order; `segmentation` in any mode."""
    assert len(ours) == len(theirs)
    if not ours:
        return
    mine, reference = (
        np.stack([_mask_of(record["segmentation"]).ravel() for record in records])
        for records in (ours, theirs)
    )
    overlap = mine.astype(np.float32) @ reference.T.astype(np.float32)
    union = mine.sum(axis=1)[:, None] + reference.sum(axis=1)[None] - overlap
    iou = np.where(union > 0, overlap / np.maximum(union, 1), 1)
    for index, record in enumerate(ours):
        # Masks of two prompts may be alike: the prompt decides between them.
        same_prompt = [
            np.allclose(record["point_coords"], other["point_coords"])
            and list(record["crop_box"]) == list(other["crop_box"])
            for other in theirs
        ]
        match = int(np.argmax(iou[index] + same_prompt))
        assert iou[index, match] >= 0.999
        other = theirs[match]
        assert same_prompt[match]
        assert set(record) == set(other)
        for score in ("predicted_iou", "stability_score"):
            assert record[score] == pytest.approx(other[score], abs=1e-3)
        if iou[index, match] == 1:
            assert record["area"] == other["area"]
            assert list(record["bbox"]) == list(other["bbox"])
        iou[:, match] = -2  # taken


def _mask_of(segmentation: Any) -> np.ndarray:
    """A mask [H, W] by the tools a user has."""
    from pycocotools import mask as coco
    from segment_anything.utils.amg import rle_to_mask

    if isinstance(segmentation, np.ndarray):
        assert segmentation.dtype == np.bool_
        return segmentation
    if isinstance(segmentation["counts"], str):
        return coco.decode(segmentation) == 1
    return rle_to_mask(segmentation)


@pytest.fixture(scope="session")
def assert_same_records() -> Callable[[list[dict[str, Any]], list[dict[str, Any]]], None]:
    """`_assert_same_records` itself."""
    return _assert_same_records


@pytest.fixture(scope="session")
def nano2_checkpoint() -> Checkpoint:
    """The smallest GleSAM on SAM 2, random weights."""
    from glesam_export.checkpoints.random import RandomCheckpoint
    from glesam_export.presets import sam_preset, unet_preset

    return RandomCheckpoint(
        NANO_SEED, sam_preset("nano2"), unet_preset("nano"), NANO_GAMMA, NANO_TIMESTEP
    )


@pytest.fixture(scope="session")
def nano2_bundle(nano2_checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its fp32 bundle, verified on export; read-only for all tests."""
    from glesam_export.build import Options, build_bundle

    folder = tmp_path_factory.mktemp("nano2") / "bundle"
    build_bundle(nano2_checkpoint, folder, Options(), lambda _: nullcontext())
    return folder


@pytest.fixture(scope="session")
def sd21_files(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    """The files of a full-size enhancer with SD 2.1; read-only."""
    from .full_size import random_weights
    from .released import write_diffusion

    return write_diffusion(tmp_path_factory.mktemp("sd21"), random_weights("sam_vit_b"))


@pytest.fixture(scope="session")
def vit_b_export(tmp_path_factory: pytest.TempPathFactory, sd21_files: Diffusion) -> FullExport:
    """ViT-B with SD 2.1 in fp32, from files."""
    return _export_files("sam_vit_b", tmp_path_factory.mktemp("vit_b"), sd21_files)


@pytest.fixture(scope="session")
def vit_b16_export(tmp_path_factory: pytest.TempPathFactory) -> FullExport:
    """ViT-B with SD 2.1 in fp16, by --random-weights: masks are reported only."""
    from .full_size import export, random_weights

    options = "--random-weights", "0", "--precision", "fp16"
    folder = tmp_path_factory.mktemp("vit_b16") / "bundle"
    return export(random_weights("sam_vit_b"), folder, *options)


@pytest.fixture(scope="session")
def hiera_t_export(
    tmp_path_factory: pytest.TempPathFactory, sd21_files: Diffusion, vit_b_export: FullExport
) -> FullExport:
    """SAM 2.1 Hiera-T with SD 2.1 in fp32, from files; its enhancer is the very one of ViT-B."""
    from .full_size import share_enhancer

    made = _export_files("sam2.1_hiera_t", tmp_path_factory.mktemp("hiera_t"), sd21_files)
    # Seven gigabytes less on disk: nobody reads these files again, and one enhancer is enough.
    shutil.rmtree(sd21_files.sd)
    share_enhancer(made.bundle, vit_b_export.bundle)
    return made


def _export_files(preset: str, folder: Path, diffusion: Diffusion) -> FullExport:
    from .full_size import export, random_weights, write_files

    checkpoint = random_weights(preset)
    files = write_files(folder, checkpoint, diffusion)
    made = export(checkpoint, folder / "bundle", *files.options())
    files.sam.unlink()
    return made
