"""A benchmark as a bar chart: seconds by stage, and memory."""

from __future__ import annotations

from pathlib import Path

from glesam_benchmark.results import Benchmark, end_to_end
from glesam_runtime.manifest import STAGES

COLOURS = {"encoder": "#0072b2", "enhancer": "#009e73", "decoder": "#d55e00"}
_OURS, _THEIRS = "#0072b2", "#999999"


def draw(found: Benchmark, path: Path) -> None:
    """Write a bar chart, PNG: who takes how long, least to most, and how much memory.

    Raises:
        InputError: matplotlib is not installed.
    """
    from glesam_evaluation.plot import require_matplotlib

    require_matplotlib()
    # Without pyplot: no window system is looked for, and no state is left behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = sorted(found.rows, key=end_to_end, reverse=True)
    fastest = found.ours[0]
    names = [row.title for row in rows]
    figure = Figure(figsize=(12, 1.6 + 0.42 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    start = [0.0] * len(rows)
    for stage in STAGES:
        seconds = [row.seconds[stage].median for row in rows]
        left.barh(names, seconds, left=start, color=COLOURS[stage], label=stage)
        start = [before + more for before, more in zip(start, seconds, strict=True)]
    for place, row in enumerate(rows):
        whole = row.seconds["end_to_end"]
        left.plot([whole.min, whole.max], [place, place], color="black", linewidth=1)
        times = f"{whole.median:.3g} s, {whole.median / end_to_end(fastest):.2f} x"
        left.annotate(
            times, (max(whole.max, start[place]), place), (4, 0), "data",
            textcoords="offset points", va="center", fontsize=8,
        )  # fmt: skip
    for label, row in zip(left.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if row.ours else "normal")
    left.set_xlabel("seconds, image to logits; the line is least to most, x is times our fastest")
    left.set_xlim(0, 1.25 * max(row.seconds["end_to_end"].max for row in rows))
    left.legend(frameon=False, fontsize=8, loc="upper right")
    peaks = [row.peak_rss / 1e9 for row in rows]
    right.barh(names, peaks, color=[_OURS if row.ours else _THEIRS for row in rows])
    right.set_xlabel("peak memory of the process, GB")
    for axis in (left, right):
        axis.grid(axis="x", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{found.about.model}; {found.about.host}", fontsize=10)
    figure.savefig(path, format="png")
