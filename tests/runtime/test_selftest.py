"""The self-test passes on the machine that made the golden file and fails on a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from glesam_runtime import open_bundle
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.bundle import load_golden
from glesam_runtime.errors import BundleError
from glesam_runtime.golden import check
from glesam_runtime.selftest import format_table, run_selftest

from .conftest import with_golden, write_manifest


def test_it_passes_where_the_golden_file_was_made(toy_bundle: Path) -> None:
    result = run_selftest(open_bundle(toy_bundle))
    assert result.passed
    assert [(e.stage, e.output) for e in result.errors] == [
        ("encoder", "image_embeddings"),
        ("enhancer", "enhanced_embeddings"),
        ("decoder", "low_res_masks"),
        ("decoder", "iou_predictions"),
    ]
    assert result.mask_iou_worst == 1
    assert result.as_dict()["gate"]["stage_relative_l2"] == 1e-4


class Skewed:
    """An engine whose result of one stage has a relative error."""

    def __init__(self, engine: Any, stage: str, factor: float) -> None:
        self._engine, self._stage, self._factor = engine, stage, factor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, stage: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        outputs = self._engine.run(stage, inputs)
        if stage != self._stage:
            return outputs
        return {k: self._engine.to_host(v) * np.float32(self._factor) for k, v in outputs.items()}


@pytest.mark.parametrize("stage", ["encoder", "enhancer", "decoder"])
@pytest.mark.parametrize("factor", [1.01, np.nan])
def test_it_names_the_stage_that_is_off(stage: str, factor: float, toy_bundle: Path) -> None:
    bundle = open_bundle(toy_bundle)
    result = check(bundle, Skewed(load_engine(bundle, "onnxruntime"), stage, factor))
    assert not result.passed
    off = {failure.split()[0] for failure in result.failures if "L2" in failure}
    assert off == {stage}  # each stage is fed the golden input, so errors do not travel
    assert "FAILED" in format_table(result)


def test_below_fp32_untrained_masks_are_only_reported(
    make_toy_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    folder = make_toy_bundle(tmp_path / "b", precision="fp16", trained=False)
    result = run_selftest(open_bundle(folder))
    assert result.gate.stage_relative_l2 == 2e-2
    assert result.gate.mask_iou_mean is None
    assert "reported" in format_table(result)


def with_golden_tensors(folder: Path, changes: Mapping[str, np.ndarray]) -> Path:
    """Replace tensors of a bundle's golden file, and its record in the manifest."""
    bundle = open_bundle(folder)
    save_file({**load_golden(bundle), **changes}, bundle.golden_path)
    write_manifest(folder, with_golden(bundle.manifest, bundle.golden_path))
    return folder


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("image_embeddings", np.zeros((1, 256, 4, 5), "f4"), r"F32 \[1, 256, 4, 5\], but F32"),
        ("enhanced_embeddings", np.zeros((2, 256, 4, 4), "f4"), r"\[1, 256, 4, 4\] is needed"),
        ("low_res_masks", np.zeros((1, 3, 16, 16), "f4"), r"but F32 \[1, 4, 16, 16\]"),
        ("low_res_masks", np.zeros((1, 4, 16, 16), "f2"), r"F16 \[1, 4, 16, 16\], but F32"),
        ("iou_predictions", np.zeros((4,), "f4"), r"F32 \[4\]"),
        ("point_coords", np.zeros((2, 3, 2), "f4"), r"F32 \[2, 3, 2\], but"),
        ("point_labels", np.zeros((1, 2), "f4"), r"F32 \[1, 2\], but F32 \[1, 3\]"),
        ("image", np.zeros((48, 60), "u1"), r"U8 \[48, 60\]"),
        ("image", np.zeros((0, 60, 3), "u1"), r"U8 \[0, 60, 3\]"),
        ("image", np.zeros((48, 60, 3), "f4"), "F32"),
        ("image_embeddings", np.zeros((1, 256, 4, 4), ml_dtypes.float8_e4m3fn), "F8_E4M3"),
        ("further", np.zeros(1, ml_dtypes.float8_e5m2), "F8_E5M2"),
    ],
)
def test_a_golden_tensor_of_another_type_or_shape(
    name: str, tensor: np.ndarray, words: str, toy_copy: Path
) -> None:
    folder = with_golden_tensors(toy_copy, {name: tensor})
    with pytest.raises(BundleError, match=rf"golden\.safetensors: {name} is .*{words}"):
        run_selftest(open_bundle(folder), "onnxruntime")


def test_a_golden_file_above_the_limit(toy_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"further": np.zeros((1 << 20) + 1, np.uint8)}
    bundle = open_bundle(with_golden_tensors(toy_copy, extra))
    assert run_selftest(bundle, "onnxruntime").passed
    monkeypatch.setenv("GLESAM_MAX_GOLDEN_MIB", "1")
    with pytest.raises(BundleError, match="the limit of 1 MiB; set GLESAM_MAX_GOLDEN_MIB"):
        run_selftest(bundle, "onnxruntime")
