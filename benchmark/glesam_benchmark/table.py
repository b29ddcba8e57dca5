"""A benchmark as text."""

from __future__ import annotations

from glesam_benchmark.chain import STEPS
from glesam_benchmark.results import Benchmark, Row

_HEADS = ("encoder", "enhancer", "decoder", "end to end", "2nd prompt", "min", "max")
_MORE = ("peak GB", "running GB", "load s", "warm up s", "rate share", "2nd/1st")
_DIFFERENCES = ("to golden", "to ours", "others")
_WIDTH = 40


def table(found: Benchmark) -> str:
    """Seconds by stage; memory, shares and differences; every ratio."""
    lines = [
        *_about(found),
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


def _about(found: Benchmark) -> list[str]:
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


def _ratios(found: Benchmark) -> list[str]:
    """Peers down, ours across."""
    known = {(ratio.peer, ratio.ours): ratio for ratio in found.ratios}
    heads = [f"{row.engine['engine']} {row.precision}" for row in found.ours]
    lines = [
        "times as fast as a peer, end to end, and our peak of memory over its",
        _line("", *heads, width=22),
    ]
    for peer in found.peers:
        pairs = [known[peer.name, mine.name] for mine in found.ours]
        cells = [f"{pair.speed:.2f} x, {pair.memory:.2f}" for pair in pairs]
        lines.append(_line(peer.title, *cells, width=22))
    return lines


def _machine(found: Benchmark) -> list[str]:
    if found.machine is None:
        return []
    rates = ", ".join(f"{rate / 1e9:,.0f} in {p}" for p, rate in found.machine.rates.items())
    flops = found.machine.flops
    parts = ", ".join(f"{stage} {count / 1e9:,.1f}" for stage, count in flops.items())
    return [
        f"matrix products here, GFLOP/s: {rates}; the model, GFLOP: "
        f"{sum(flops.values()) / 1e9:,.1f} ({parts})"
    ]
