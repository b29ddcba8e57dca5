"""How far numbers and masks lie apart, and how far each precision lets them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.manifest import Gate, PrecisionName

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

GATES: dict[PrecisionName, Gate] = {
    "fp32": Gate(stage_relative_l2=1e-4, mask_iou_mean=0.9999, mask_iou_worst=0.999),
    "fp16": Gate(stage_relative_l2=2e-2, mask_iou_mean=0.995, mask_iou_worst=0.98),
    "bf16": Gate(stage_relative_l2=2e-2, mask_iou_mean=0.995, mask_iou_worst=0.98),
    "int8": Gate(stage_relative_l2=None, mask_iou_mean=0.98, mask_iou_worst=0.95),
    "fp8": Gate(stage_relative_l2=None, mask_iou_mean=0.98, mask_iou_worst=0.95),
}
"""What a trained bundle must reach; None is reported only."""

_COARSENESS: tuple[PrecisionName, ...] = ("fp32", "bf16", "fp16", "fp8", "int8")


def gate_for(precision: PrecisionName, trained: bool) -> Gate:
    """The gate of a precision.

    The masks of random weights are the sign of noise around zero, which any rounding flips: below
    fp32 their figures are reported only.
    """
    gate = GATES[precision]
    if trained or precision == "fp32":
        return gate
    return Gate(stage_relative_l2=gate.stage_relative_l2, mask_iou_mean=None, mask_iou_worst=None)


def coarsest(precisions: Sequence[PrecisionName]) -> PrecisionName:
    """The precision whose gate judges a chain of stages: the loosest of theirs."""
    return max(precisions, key=_COARSENESS.index)


def relative_l2(actual: ArrayLike, expected: ArrayLike) -> float:
    """|actual - expected| / |expected| over all elements, in float64.

    Infinity where `actual` holds a NaN or infinity, so that no comparison lets one pass.

    Raises:
        ValueError: shapes differ.
    """
    a, e = _pair(actual, expected)
    if not np.isfinite(a).all():
        return float("inf")
    norm = float(np.linalg.norm(e))
    distance = float(np.linalg.norm(a - e))
    if norm == 0.0:
        return 0.0 if distance == 0.0 else float("inf")
    return distance / norm


def max_abs(actual: ArrayLike, expected: ArrayLike) -> float:
    """Largest absolute difference; infinity where `actual` is not finite.

    Raises:
        ValueError: shapes differ.
    """
    a, e = _pair(actual, expected)
    if not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - e).max(initial=0.0))


def mask_iou(actual: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape; 1 where both are empty.

    Raises:
        ValueError: shapes differ.
    """
    if actual.shape != expected.shape:
        raise ValueError(f"masks of shape {actual.shape} and {expected.shape}")
    union = int(np.count_nonzero(actual | expected))
    return int(np.count_nonzero(actual & expected)) / union if union else 1.0


def failures(
    gate: Gate, stage_errors: dict[str, float], mean_iou: float, worst_iou: float
) -> list[str]:
    """What lies outside a gate, one line each; empty means passed.

    Args:
        gate: what must hold.
        stage_errors: relative L2 by stage.
        mean_iou: mean mask IoU with the reference.
        worst_iou: the lowest of them, or of those that count.
    """
    found = []
    if gate.stage_relative_l2 is not None:
        found += [
            f"{stage}: relative L2 {error:.3g} exceeds {gate.stage_relative_l2:g}"
            for stage, error in stage_errors.items()
            if not error <= gate.stage_relative_l2
        ]
    for word, value, limit in (
        ("mean", mean_iou, gate.mask_iou_mean),
        ("worst", worst_iou, gate.mask_iou_worst),
    ):
        if limit is not None and not value >= limit:
            found.append(f"{word} mask IoU {value:.5f} is below {limit:g}")
    return found


def _pair(actual: Any, expected: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both as float64, of one shape."""
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if a.shape != e.shape:
        raise ValueError(f"arrays of shape {a.shape} and {e.shape}")
    return a, e
