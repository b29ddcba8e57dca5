"""The exporter works at full size: ViT-B with SD 2.1, and the largest graph of ViT-H."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

from glesam_export import tracing
from glesam_export.families.sam.encoder import EncoderGraph
from glesam_export.verify.cases import make_cases
from glesam_runtime.bundle import open_bundle
from glesam_runtime.compare import relative_l2

from ..full_size import random_weights

if TYPE_CHECKING:
    from ..full_size import FullExport

pytestmark = pytest.mark.full

PEAK_LIMIT = 10e9
"""Bytes, for the whole export with verification."""


def test_fp32_passes_its_gates_within_memory(vit_b_export: FullExport) -> None:
    vit_b_export.show()
    parity = open_bundle(vit_b_export.bundle).manifest.parity
    assert parity is not None
    assert parity.passed
    assert parity.gate.stage_relative_l2 == 1e-4
    assert parity.gate.mask_iou_mean == 0.9999
    assert {image.level for image in parity.images} == {"clear", "LQ-1", "LQ-2", "LQ-3"}
    assert vit_b_export.peak_rss < PEAK_LIMIT


@torch.no_grad()
def test_vit_h_keeps_its_two_gigabytes_beside_the_graph(tmp_path: Path) -> None:
    """Export more than the 2 GiB of an ONNX file. ViT-H's other stages are those of ViT-B."""
    checkpoint = random_weights("sam_vit_h")
    case = make_cases(checkpoint.preset)[-1]
    encoder = checkpoint.encoder()
    wanted = encoder(torch.from_numpy(case.prepared.tensor)).numpy()
    path, data = tracing.export(EncoderGraph(encoder), "encoder", "fp32", 1024, 1, tmp_path)
    assert data is not None
    assert data.stat().st_size > 2 << 30
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": case.prepared.tensor})
    error = relative_l2(np.asarray(found), wanted)
    print(f"sam_vit_h encoder: relative L2 {error:.1e}, data {data.stat().st_size / 1e9:.2f} GB")
    assert error < 1e-4
