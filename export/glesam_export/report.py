"""The parity table that ends every export."""

from __future__ import annotations

from typing import get_args

from glesam_runtime.manifest import Parity, ParityOutput

COLUMNS: tuple[ParityOutput, ...] = get_args(ParityOutput)


def parity_table(parity: Parity) -> str:
    """Relative L2 of each stage and mask IoU by image, and what was asked of them."""
    head = f"{'image':<16} {'level':<6}" + "".join(f" {name:>10}" for name in COLUMNS)
    lines = [
        "relative L2 by stage, and mask IoU with the PyTorch reference",
        head + f" {'IoU mean':>10} {'IoU worst':>10}",
    ]
    for image in parity.images:
        errors = "".join(f" {image.errors[name].relative_l2:>10.2e}" for name in COLUMNS)
        ious = f" {image.mask_iou_mean:>10.6f} {image.mask_iou_worst:>10.6f}"
        lines.append(f"{image.image:<16.16} {image.level:<6}{errors}{ious}")
    gate = parity.gate
    stage = _limit(gate.stage_relative_l2)
    lines.append(
        f"{'gate':<23}"
        + f" {stage:>10}" * len(COLUMNS)
        + f" {_limit(gate.mask_iou_mean):>10} {_limit(gate.mask_iou_worst):>10}"
    )
    lines.append(f"{'passed' if parity.passed else 'FAILED'} ({parity.backend})")
    return "\n".join(lines)


def _limit(value: float | None) -> str:
    """A gate's figure, or that there is none."""
    return "reported" if value is None else f"{value:g}"
