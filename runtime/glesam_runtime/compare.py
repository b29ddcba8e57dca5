"""Measure the difference between numbers or masks, and apply the limits of each precision."""

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
"""The limits for a trained bundle by precision. A figure whose limit is None is only reported."""

_COARSENESS: tuple[PrecisionName, ...] = ("fp32", "bf16", "fp16", "fp8", "int8")


def gate_for(precision: PrecisionName, trained: bool) -> Gate:
    """Return the limits of a precision.

    With random weights the logits are noise around zero, and rounding flips their signs. So below
    fp32 the figures of the masks are only reported.
    """
    gate = GATES[precision]
    if trained or precision == "fp32":
        return gate
    return Gate(stage_relative_l2=gate.stage_relative_l2, mask_iou_mean=None, mask_iou_worst=None)


def coarsest(precisions: Sequence[PrecisionName]) -> PrecisionName:
    """Return the coarsest precision, whose limits apply to a chain of stages."""
    return max(precisions, key=_COARSENESS.index)


def relative_l2(actual: ArrayLike, expected: ArrayLike) -> float:
    """Return |actual - expected| / |expected| over all elements, in float64.

    The result is infinity if `actual` contains a NaN or infinity, so that it exceeds every limit.

    Raises:
        ValueError: the shapes differ.
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
    """Return the largest absolute difference, or infinity if `actual` is not finite.

    Raises:
        ValueError: the shapes differ.
    """
    a, e = _pair(actual, expected)
    if not np.isfinite(a).all():
        return float("inf")
    return float(np.abs(a - e).max(initial=0.0))


def mask_iou(actual: NDArray[np.bool_], expected: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks of one shape, or 1 if both are empty.

    Raises:
        ValueError: the shapes differ.
    """
    if actual.shape != expected.shape:
        raise ValueError(f"masks must have one shape, not {actual.shape} and {expected.shape}")
    union = int(np.count_nonzero(actual | expected))
    return int(np.count_nonzero(actual & expected)) / union if union else 1.0


def failures(
    gate: Gate, stage_errors: dict[str, float], mean_iou: float, worst_iou: float
) -> list[str]:
    """Return one line for each figure outside its limit. An empty list means passed.

    Args:
        gate: the limits.
        stage_errors: the relative L2 error by stage.
        mean_iou: the mean mask IoU with the reference.
        worst_iou: the lowest mask IoU, or the lowest of the masks that count.
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
    """Return both as float64 arrays; raise an error if their shapes differ."""
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    if a.shape != e.shape:
        raise ValueError(f"arrays must have one shape, not {a.shape} and {e.shape}")
    return a, e
