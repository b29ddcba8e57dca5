"""Show a comparison as a table of text and as a bar chart."""

from __future__ import annotations

from pathlib import Path

from glesam_benchmark.comparison import Comparison, Row, end_to_end
from glesam_benchmark.timing import STEPS
from glesam_runtime.manifest import STAGES

_HEADS = ("encoder", "enhancer", "decoder", "end to end", "2nd prompt", "min", "max")
_MORE = ("peak GB", "running GB", "load s", "warm up s", "rate share", "2nd/1st")
_DIFFERENCES = ("to golden", "to ours", "others")
_WIDTH = 40


def comparison_table(found: Comparison) -> str:
    """Return the text: seconds by stage, memory, shares and differences, then the ratios."""
    lines = [
        *_head(found),
        "",
        _line("seconds", *_HEADS),
        *(_line(row.title, *_seconds(row)) for row in found.rows),
        "",
        _line("", *_MORE, *_DIFFERENCES),
        *(_line(row.title, *_further(row)) for row in found.rows),
        "",
    ]
    if found.ratios:
        lines += [*_ratios(found), ""]
    failed = [f"failed: {line}" for line in found.failed]
    return "\n".join([*lines, *_machine(found), *failed, *found.notes]).rstrip()


def _head(found: Comparison) -> list[str]:
    return [
        f"{found.about.model}, weights {found.about.weights}; {found.about.host}",
        f"image to logits of one prompt, medians of {found.about.rounds} rounds",
    ]


def _line(title: str, *cells: str, width: int = 11) -> str:
    return f"{title:<{_WIDTH}}" + "".join(f"{cell:>{width}}" for cell in cells)


def _seconds(row: Row) -> list[str]:
    whole = row.seconds["end_to_end"]
    values = [*(row.seconds[step].median for step in STEPS), whole.min, whole.max]
    return [f"{value:.4f}" for value in values]


def _further(row: Row) -> list[str]:
    return [
        f"{row.peak_rss / 1e9:.2f}",
        "-" if row.running_peak_rss is None else f"{row.running_peak_rss / 1e9:.2f}",
        f"{row.load_seconds:.2f}",
        f"{row.warm_up_seconds:.2f}",
        "-" if row.rate_share is None else f"{row.rate_share:.3f}",
        f"{row.second_prompt_share:.4f}",
        f"{row.reference_difference:.1e}",
        f"{row.difference:.1e}",
        "-" if row.others is None else f"{row.others:.0%}",
    ]


def _ratios(found: Comparison) -> list[str]:
    """Return the table of ratios, with peers in rows and the bundle's engines in columns."""
    known = {(ratio.peer, ratio.ours): ratio for ratio in found.ratios}
    heads = [f"{row.engine['engine']} {row.precision}" for row in found.ours]
    lines = [
        "times as fast as the peer, end to end; our peak memory over the peer's",
        _line("", *heads, width=22),
    ]
    for peer in found.peers:
        pairs = [known[peer.name, mine.name] for mine in found.ours]
        cells = [f"{pair.speed:.2f} x, {pair.memory:.2f}" for pair in pairs]
        lines.append(_line(peer.title, *cells, width=22))
    return lines


def _machine(found: Comparison) -> list[str]:
    if found.machine is None:
        return []
    rates = ", ".join(f"{rate / 1e9:,.0f} in {p}" for p, rate in found.machine.rates.items())
    flops = found.machine.flops
    parts = ", ".join(f"{stage} {count / 1e9:,.1f}" for stage, count in flops.items())
    return [
        f"matrix products here, GFLOP/s: {rates}; the model, GFLOP: "
        f"{sum(flops.values()) / 1e9:,.1f} ({parts})"
    ]


COLOURS = {"encoder": "#0072b2", "enhancer": "#009e73", "decoder": "#d55e00"}
_OURS, _THEIRS = "#0072b2", "#999999"


def draw_comparison(found: Comparison, path: Path) -> None:
    """Write a PNG with bars for seconds by stage and for peak memory.

    Raises:
        InputError: matplotlib is not installed.
    """
    from glesam_evaluation.plot import require_matplotlib

    require_matplotlib()
    # pyplot would look for a window system and keep global state.
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
    left.set_xlabel(
        "seconds, image to logits; lines go from min to max, x is the factor to our fastest"
    )
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
