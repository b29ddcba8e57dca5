"""SAM 2 works at full size: Hiera-T of SAM 2.1 with SD 2.1, from random weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from glesam_runtime.bundle import load_golden, open_bundle
from glesam_runtime.selftest import run_selftest

if TYPE_CHECKING:
    from ..full_size import FullExport

pytestmark = pytest.mark.full

PEAK_LIMIT = 10e9
"""Bytes, for the whole export with verification."""


def test_fp16_passes_its_gates_within_memory(
    hiera_t16_export: FullExport, vit_b_export: FullExport
) -> None:
    """Check the gates, the memory, and that the enhancer is half the size of ViT-B's in fp32."""
    hiera_t16_export.show()
    manifest = open_bundle(hiera_t16_export.bundle).manifest
    assert (manifest.model.family, manifest.model.preset) == ("sam2", "sam2.1_hiera_t")
    assert manifest.parity is not None
    assert manifest.parity.passed
    assert manifest.parity.gate.stage_relative_l2 == 2e-2
    assert {image.level for image in manifest.parity.images} == {"clear", "LQ-1", "LQ-2", "LQ-3"}
    halved = hiera_t16_export.bundle / "enhancer.onnx.data"
    whole = vit_b_export.bundle / "enhancer.onnx.data"
    assert halved.stat().st_size < 0.51 * whole.stat().st_size
    assert hiera_t16_export.peak_rss < PEAK_LIMIT


def test_its_golden_tensors_prove_it_again(hiera_t16_export: FullExport) -> None:
    bundle = open_bundle(hiera_t16_export.bundle)
    golden = load_golden(bundle)
    assert golden["high_res_feats_0"].shape == (1, 32, 256, 256)
    assert golden["high_res_feats_1"].shape == (1, 64, 128, 128)
    assert run_selftest(bundle).passed
