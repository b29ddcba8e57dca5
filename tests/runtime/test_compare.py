"""Figures are computed by their definitions, and NaN or infinity never passes a gate."""

from __future__ import annotations

import math

import numpy as np
import pytest

from glesam_runtime import compare


def test_relative_l2_and_max_abs() -> None:
    expected = np.array([3.0, 4.0])
    assert compare.relative_l2(expected, expected) == 0
    assert compare.relative_l2([3, 4.5], expected) == pytest.approx(0.1)
    assert compare.max_abs([3, 4.5], expected) == 0.5
    assert compare.relative_l2([0, 0], [0, 0]) == 0
    assert compare.relative_l2([0, 1], [0, 0]) == math.inf
    assert compare.max_abs(np.zeros(0), np.zeros(0)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_infinitely_far(bad: float) -> None:
    assert compare.relative_l2([1, bad], [1, 2]) == math.inf
    assert compare.max_abs([1, bad], [1, 2]) == math.inf


def test_float16_does_not_overflow() -> None:
    big = np.full(1000, 60000, np.float16)
    assert compare.relative_l2(big, big) == 0
    assert compare.relative_l2(big, big.astype(np.float64) * 1.01) == pytest.approx(0.01 / 1.01)


def test_shapes_must_match() -> None:
    for figure in (compare.relative_l2, compare.max_abs):
        with pytest.raises(ValueError, match="shape"):
            figure(np.zeros((1, 2)), np.zeros((2,)))
    with pytest.raises(ValueError, match="shape"):
        compare.mask_iou(np.zeros((1, 2), np.bool_), np.zeros((2, 1), np.bool_))


def test_mask_iou() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert compare.mask_iou(a, b) == pytest.approx(1 / 3)
    assert compare.mask_iou(a, ~a) == 0
    nothing = np.zeros(4, np.bool_)
    assert compare.mask_iou(nothing, nothing) == 1
    assert compare.mask_iou(nothing, a) == 0


def test_gates() -> None:
    assert compare.gate_for("fp32", trained=False) == compare.GATES["fp32"]
    untrained = compare.gate_for("fp16", trained=False)
    assert untrained.stage_relative_l2 == 2e-2
    assert untrained.mask_iou_mean is None
    assert compare.gate_for("int8", trained=True).stage_relative_l2 is None
    assert compare.coarsest(["fp32", "fp16", "fp32"]) == "fp16"
    assert compare.coarsest(["fp32", "int8", "bf16"]) == "int8"


def test_failures() -> None:
    gate = compare.GATES["fp32"]
    assert compare.failures(gate, {"encoder": 1e-4}, 0.9999, 0.999) == []
    (line,) = compare.failures(gate, {"encoder": 2e-4, "decoder": 0}, 1, 1)
    assert line.startswith("encoder: relative L2 0.0002 exceeds 0.0001")
    assert len(compare.failures(gate, {"encoder": math.nan}, math.nan, 0.5)) == 3
    open_gate = compare.gate_for("fp8", trained=False)
    assert compare.failures(open_gate, {"encoder": math.inf}, 0, 0) == []
