"""Provide bundles that are exported once per session, and the checkpoints behind them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings

from glesam_runtime.engine_libraries import disable_reports

if TYPE_CHECKING:
    from glesam_export.checkpoints.random import RandomCheckpoint

    from .full_size import FullExport
    from .released import Diffusion
    from .traced import Traced

# Property tests draw the same examples every time, so that everyone sees the same failures.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

disable_reports()  # tests import engines directly too

NANO_SEED, NANO_GAMMA, NANO_TIMESTEP = 0, 5.0, 999


def pytest_runtest_setup() -> None:
    """Seed torch, so that its random numbers do not depend on the tests that ran before."""
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use an empty cache, so that engine checks of the developer's own runs are not read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Traced:
    """Return stages of small random models, each traced once per run. Tests of tracing avoid it."""
    from .traced import Traced

    base = tmp_path_factory.getbasetemp()
    # The base folder of a worker is a subfolder of the run's.
    return Traced((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "traced")


@pytest.fixture(scope="session")
def nano_checkpoint() -> RandomCheckpoint:
    """Return the smallest GleSAM, with random weights."""
    from glesam_export.checkpoints.random import RandomCheckpoint
    from glesam_export.presets import sam_preset, unet_preset

    return RandomCheckpoint(
        NANO_SEED, sam_preset("nano"), unet_preset("nano"), NANO_GAMMA, NANO_TIMESTEP
    )


@pytest.fixture(scope="session")
def nano_bundle(nano_checkpoint: RandomCheckpoint, traced: Traced) -> Path:
    """Return the fp32 bundle of `nano_checkpoint`, verified on export; do not change it."""
    return traced.bundle(nano_checkpoint)


def _assert_same_records(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    """Match the records of two mask generators one to one, in any order and any output mode."""
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
        # Two prompts may have equal masks. Then the prompt decides which records match.
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
    """Decode a mask [H, W] with the tools that users have."""
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
    """Return `_assert_same_records`."""
    return _assert_same_records


@pytest.fixture(scope="session")
def nano2_checkpoint() -> RandomCheckpoint:
    """Return the smallest GleSAM on SAM 2, with random weights."""
    from glesam_export.checkpoints.random import RandomCheckpoint
    from glesam_export.presets import sam_preset, unet_preset

    return RandomCheckpoint(
        NANO_SEED, sam_preset("nano2"), unet_preset("nano"), NANO_GAMMA, NANO_TIMESTEP
    )


@pytest.fixture(scope="session")
def nano2_bundle(nano2_checkpoint: RandomCheckpoint, traced: Traced) -> Path:
    """Return the fp32 bundle of `nano2_checkpoint`, verified on export; do not change it."""
    return traced.bundle(nano2_checkpoint)


@pytest.fixture(scope="session")
def sd21_files(tmp_path_factory: pytest.TempPathFactory) -> Diffusion:
    """Write the files of a full-size enhancer with SD 2.1; tests must not change them."""
    from .full_size import random_weights
    from .released import write_diffusion

    return write_diffusion(tmp_path_factory.mktemp("sd21"), random_weights("sam_vit_b"))


@pytest.fixture(scope="session")
def vit_b_export(tmp_path_factory: pytest.TempPathFactory, sd21_files: Diffusion) -> FullExport:
    """Export ViT-B with SD 2.1 in fp32 from files."""
    from .full_size import export, random_weights, write_files

    checkpoint, folder = random_weights("sam_vit_b"), tmp_path_factory.mktemp("vit_b")
    files = write_files(folder, checkpoint, sd21_files)
    made = export(checkpoint, folder / "bundle", *files.options())
    files.sam.unlink()
    return made


@pytest.fixture(scope="session")
def hiera_t16_export(tmp_path_factory: pytest.TempPathFactory) -> FullExport:
    """Export SAM 2.1 Hiera-T with SD 2.1 in fp16 from random weights, so its masks have no gate."""
    from .full_size import export, random_weights

    options = "--random-weights", "0", "--precision", "fp16"
    folder = tmp_path_factory.mktemp("hiera_t16") / "bundle"
    return export(random_weights("sam2.1_hiera_t"), folder, *options)


@pytest.fixture(scope="session")
def hiera_t_bundle(
    tmp_path_factory: pytest.TempPathFactory, sd21_files: Diffusion, hiera_t16_export: FullExport
) -> Path:
    """Export SAM 2.1 Hiera-T in fp32 from files, and take the enhancer of its fp16 bundle."""
    from glesam_export.weight_options import WeightOptions
    from glesam_export.weights import make_checkpoint

    from .full_size import assemble, random_weights, write_files

    folder = tmp_path_factory.mktemp("hiera_t")
    weights = random_weights("sam2.1_hiera_t")
    files = write_files(folder, weights, sd21_files)
    given = {name: getattr(files, name) for name in ("sam", "sd", "prompt_embeds")}
    given["lora"] = [files.lora]
    presets = {"preset": weights.preset.name, "unet": weights.unet.name}
    pair = {"gamma": files.gamma, "timestep": files.timestep, "lora_alpha": 8.0}
    read = make_checkpoint(WeightOptions(**presets, **given, **pair))
    other = hiera_t16_export.bundle
    return assemble(folder / "bundle", read, "fp32", like=other, enhancer=other)
