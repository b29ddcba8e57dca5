"""Prints what glesam-export reports while it works and when it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

from rich.console import Console

from glesam_runtime.manifest import STAGES, Manifest, Parity, ParityOutput
from glesam_runtime.verbosity import is_quiet

PARITY_COLUMNS: tuple[ParityOutput, ...] = get_args(ParityOutput)

_console = Console(stderr=True, highlight=False)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Show `what` on stderr while the block runs; then print how long it took.

    A terminal shows a spinner meanwhile. With --quiet nothing is shown.
    """
    if is_quiet():
        yield
        return
    start = time.perf_counter()
    with _console.status(what):
        yield
    _console.print(f"{what:<44} {time.perf_counter() - start:7.1f} s")


def parity_table(parity: Parity) -> str:
    """Return the table of relative L2 by stage and mask IoU by image, with the gate below."""
    leveled = any(isinstance(image.timestep, int) for image in parity.images)
    head = f"{'image':<16} {'level':<6}" + f" {'timestep':>8}" * leveled
    head += "".join(f" {name:>10}" for name in PARITY_COLUMNS)
    lines = [
        "relative L2 by stage, and mask IoU with the PyTorch reference",
        head + f" {'IoU mean':>10} {'IoU worst':>10}",
    ]
    for image in parity.images:
        errors = "".join(f" {image.errors[name].relative_l2:>10.2e}" for name in PARITY_COLUMNS)
        ious = f" {image.mask_iou_mean:>10.6f} {image.mask_iou_worst:>10.6f}"
        at = f" {image.timestep:>8}" if leveled else ""
        lines.append(f"{image.image:<16.16} {image.level:<6}{at}{errors}{ious}")
    gate = parity.gate
    stage = _limit(gate.stage_relative_l2)
    lines.append(
        f"{'gate':<{32 if leveled else 23}}"
        + f" {stage:>10}" * len(PARITY_COLUMNS)
        + f" {_limit(gate.mask_iou_mean):>10} {_limit(gate.mask_iou_worst):>10}"
    )
    lines.append(f"{'passed' if parity.passed else 'FAILED'} ({parity.backend})")
    return "\n".join(lines)


def engine_table(manifest: Manifest) -> str:
    """Return the table of an engine bundle's files, and what they need to run."""
    build = manifest.target.build
    assert build is not None, "an engine bundle has one"
    lines = [f"{'stage':<10} {'precision':<10} {'megabytes':>10}  {'profile'}"]
    for stage in STAGES:
        spec = manifest.stages[stage]
        profile = " ".join(f"{axis}={sizes}" for axis, sizes in (spec.profile or {}).items())
        size = spec.graph.bytes / 1e6
        lines.append(f"{stage:<10} {spec.precision:<10} {size:>10.1f}  {profile or 'fixed'}")
    lines.append(
        f"for {manifest.target.engine} {build.version} on {build.system}, compute capability "
        f"{', '.join(build.compute_capabilities)}"
    )
    lines.append(f"precision verified in the {build.precision_seen_in}")
    return "\n".join(lines)


def _limit(value: float | None) -> str:
    """Return a limit of the gate as text; None means that the figure is only reported."""
    return "reported" if value is None else f"{value:g}"
