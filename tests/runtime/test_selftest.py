"""The self-test passes on the machine that made the golden file and fails on a wrong one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glesam_runtime import open_bundle
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.golden import check
from glesam_runtime.selftest import format_table, run_selftest


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
