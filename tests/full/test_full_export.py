"""The exporter at the size users hold: ViT-B with SD 2.1."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from glesam_runtime.bundle import open_bundle

if TYPE_CHECKING:
    from ..conftest import FullExport

pytestmark = pytest.mark.full

PEAK_LIMIT = 10e9
"""Bytes, for the whole export with verification."""


def show(export: FullExport) -> None:
    size = sum(file.stat().st_size for file in export.bundle.iterdir())
    print(export.printed)
    print(
        f"{export.seconds:.0f} s, peak RSS {export.peak_rss / 1e9:.2f} GB, "
        f"bundle {size / 1e9:.2f} GB"
    )


def test_fp32_passes_its_gates_within_memory(vit_b_export: FullExport) -> None:
    show(vit_b_export)
    parity = open_bundle(vit_b_export.bundle).manifest.parity
    assert parity is not None
    assert parity.passed
    assert parity.gate.stage_relative_l2 == 1e-4
    assert parity.gate.mask_iou_mean == 0.9999
    assert {image.level for image in parity.images} == {"clear", "LQ-1", "LQ-2", "LQ-3"}
    assert vit_b_export.peak_rss < PEAK_LIMIT


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precisions_export(
    precision: str,
    vit_b_export: FullExport,
    export_full: Callable[..., FullExport],
    tmp_path: Path,
) -> None:
    export = export_full(tmp_path / precision, "--precision", precision)
    show(export)
    parity = open_bundle(export.bundle).manifest.parity
    assert parity is not None
    assert parity.passed
    halved = export.bundle / "enhancer.onnx.data"
    whole = vit_b_export.bundle / "enhancer.onnx.data"
    assert halved.stat().st_size < 0.51 * whole.stat().st_size
    assert export.peak_rss < PEAK_LIMIT
    shutil.rmtree(export.bundle)
