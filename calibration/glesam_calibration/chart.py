"""A ranking as a bar chart."""

from __future__ import annotations

from pathlib import Path

from glesam_calibration.sensitivity import Ranking
from glesam_evaluation.plot import require_matplotlib


def draw(ranking: Ranking, path: Path, most: int = 30) -> None:
    """Write a bar chart, PNG: IoU lost and stage error of the costliest units.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    # Without pyplot: no window system is looked for, and no state is left behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = ranking.costs[:most][::-1]
    figure = Figure(figsize=(11, 1.2 + 0.24 * len(shown)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    colours = {"encoder": "#0072b2", "enhancer": "#009e73", "decoder": "#d55e00"}
    names = [f"{cost.stage} {cost.unit}" for cost in shown]
    fills = [colours[cost.stage] for cost in shown]
    left.barh(names, [100 * cost.iou_lost for cost in shown], color=fills)
    left.set_xlabel("mask IoU lost, %")
    right.barh(names, [cost.stage_error for cost in shown], color=fills)
    right.set_xlabel("relative error of the stage (enhancer: of eps)")
    left.tick_params(labelsize=7)
    figure.suptitle(f"{ranking.kind}, each {ranking.unit} quantized alone", fontsize=10)
    figure.savefig(path, format="png")
