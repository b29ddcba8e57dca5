"""Show growth as text and as a chart."""

from __future__ import annotations

from pathlib import Path

import msgspec

from glesam_benchmark.growth import AXES, AXIS_LABELS, Growth, Series
from glesam_benchmark.report_file import ReportHead

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")


class GrowthReport(msgspec.Struct, frozen=True):
    """The JSON document of `glesam-bench growth`."""

    about: ReportHead
    engines: dict[str, Growth]
    """Growth by the engine name given on the command line."""


def growth_table(found: GrowthReport) -> str:
    """Return seconds by size, and the cost of one more from the smallest to the largest size."""
    lines = [
        f"{found.about.model}; {found.about.host}; seconds, medians of {found.about.rounds} rounds"
    ]
    for name, growth in found.engines.items():
        lines += ["", f"{name} ({growth.engine['engine']} {growth.engine['version']})"]
        lines += [line for series in growth.series for line in _lines(series)]
    return "\n".join(lines)


def _lines(series: Series) -> list[str]:
    words, unit = AXIS_LABELS[series.axis]
    sizes = "".join(f"{point.size:>10}" for point in series.points)
    seconds = "".join(f"{point.seconds.median:>10.4f}" for point in series.points)
    first, last = series.points[0], series.points[-1]
    each = (last.seconds.median - first.seconds.median) / (last.size - first.size)
    more = f"   {1000 * each:.3g} ms each" if unit != "pixels" else ""
    return [f"  {words:<54}{sizes}", f"  {'':<54}{seconds}{more}"]


def draw_growth(found: GrowthReport, path: Path) -> None:
    """Write a PNG with a panel for each axis and a line for each engine.

    Raises:
        InputError: matplotlib is not installed.
    """
    from glesam_evaluation.plot import require_matplotlib

    require_matplotlib()
    # pyplot would look for a window system and keep global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(AXES), 3.6), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(AXES))
    for panel, axis in zip(panels, AXES, strict=True):
        words, unit = AXIS_LABELS[axis]
        for colour, (name, growth) in zip(_COLOURS, found.engines.items(), strict=False):
            points = next(series.points for series in growth.series if series.axis == axis)
            sizes = [point.size for point in points]
            panel.plot(sizes, [p.seconds.median for p in points], "o-", color=colour, label=name)
            panel.set_xticks(sizes, [str(size) for size in sizes], fontsize=7)
        panel.set_title(words, fontsize=7)
        panel.set_xlabel(unit)
        panel.set_ylim(bottom=0)
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("seconds")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(found.about.model, fontsize=10)
    figure.savefig(path, format="png")
