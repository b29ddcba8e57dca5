"""The nano bundle that ships inside the runtime is what this exporter makes."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from glesam_export import record, verify
from glesam_export.cases import make_cases
from glesam_export.options import WeightOptions, make_checkpoint
from glesam_runtime.bundle import builtin_bundle_path, load_golden, open_bundle
from glesam_runtime.compare import relative_l2

MAX_BYTES = 25_000_000


@pytest.fixture(scope="module")
def reference() -> tuple[list, list]:
    """Cases and the reference's outputs on nano's built-in weights."""
    nothing = (None,) * 7
    checkpoint = make_checkpoint(WeightOptions("nano", None, *nothing))
    cases = make_cases(open_bundle().manifest.preprocessing)
    return cases, record.record_reference(checkpoint, cases, lambda _: nullcontext())


def test_it_is_small_and_says_what_it_is() -> None:
    files = list(builtin_bundle_path().iterdir())
    assert sum(file.stat().st_size for file in files) < MAX_BYTES
    model = open_bundle().manifest.model
    assert (model.preset, model.unet, model.trained) == ("nano", "nano", False)


def test_it_passes_its_gates(reference: tuple[list, list]) -> None:
    parity = verify.measure(open_bundle(), *reference, lambda _: nullcontext())
    assert parity.passed
    assert parity.gate.stage_relative_l2 == 1e-4


def test_its_golden_tensors_are_the_references(reference: tuple[list, list]) -> None:
    golden = load_golden(open_bundle())
    _, (first, *_) = reference
    low_res, iou = first.decoded["points"]
    expected = {
        "image_embeddings": first.z_l,
        "enhanced_embeddings": first.z_h,
        "low_res_masks": low_res,
        "iou_predictions": iou,
    }
    for name, tensor in expected.items():
        assert relative_l2(golden[name], tensor) < 1e-5
