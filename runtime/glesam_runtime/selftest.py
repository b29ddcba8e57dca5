"""Compare this machine's results with the reference results in a bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from glesam_runtime.engine_selection import select_engine
from glesam_runtime.golden import SelftestResult, check

if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import EngineOptions


def run_selftest(
    bundle: Bundle,
    backend: str = "auto",
    device: str | None = None,
    options: EngineOptions | None = None,
) -> SelftestResult:
    """Load an engine and compare its results with the bundle's golden file.

    Args:
        bundle: the bundle to run.
        backend: a backend's name, or "auto".
        device: the device; None is the backend's default.
        options: the engine's options; None is the defaults.

    Raises:
        BundleError: the golden file cannot be used.
        BackendError: the engine is missing or failed.
    """
    chosen = select_engine(bundle, backend, device, options=options, check_limits=False)
    return check(bundle, chosen.engine)


def format_table(result: SelftestResult) -> str:
    """Return the figures as a table for a terminal."""
    limit = result.gate.stage_relative_l2
    spelled = "reported" if limit is None else f"{limit:g}"
    wide = max(21, *(len(error.output) + 2 for error in result.errors))
    lines = [f"{'stage':<10}{'output':<{wide}}{'relative L2':>12}{'gate':>10}{'max abs':>12}"]
    lines += [
        f"{e.stage:<10}{e.output:<{wide}}{e.relative_l2:>12.3g}{spelled:>10}{e.max_abs:>12.3g}"
        for e in result.errors
    ]
    for word, value, gate in (
        ("mean", result.mask_iou_mean, result.gate.mask_iou_mean),
        ("worst", result.mask_iou_worst, result.gate.mask_iou_worst),
    ):
        spelled = "reported" if gate is None else f"{gate:g}"
        lines.append(f"{'masks':<10}{word + ' IoU':<{wide}}{value:>12.5f}{spelled:>10}")
    ran = result.engine
    lines.append(
        f"{'passed' if result.passed else 'FAILED'} on {ran['engine']} {ran['version']}, "
        f"{ran['provider']}, {ran['device']}"
    )
    return "\n".join(lines)
