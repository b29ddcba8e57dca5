"""Measure the variants of an ablation on pictures that none of them saw, and report the figures."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from glesam_evaluation.conditions import CLEAR, LQ
from glesam_evaluation.datasets import Dataset, SceneDataset
from glesam_evaluation.plot import require_matplotlib
from glesam_evaluation.protocol import EvaluationPlan, Segmenter, evaluate
from glesam_evaluation.results import LQ_MEAN, Results
from glesam_evaluation.segmenters import WITHOUT, SharedEncoder, StagedSegmenter
from glesam_export.checkpoints import Checkpoint
from glesam_training.nano.ablation import Cost, prepared
from glesam_training.nano.held_out_report import HELD_OUT, held_out
from glesam_training.nano.kinds import Kind
from glesam_training.nano.variants import INPUTS
from glesam_training.reference_segmenters import ReferenceStages

PROMPT = "3-point"
WIDE = {"4:3": (480, 640), "16:9": (432, 768)}
"""Height and width of held-out pictures that are not square."""

_LEVELS = (*reversed(LQ), LQ_MEAN)


@dataclass(frozen=True)
class Pictures:
    """Held-out pictures, and the columns that they give.

    Attributes:
        name: what the columns' headings add; empty if there are no others to tell apart.
        dataset: pictures with masks.
        columns: conditions and means.
        recipe: recipe of LQ-1 to LQ-3.
    """

    name: str
    dataset: Dataset
    columns: tuple[str, ...]
    recipe: str = "paper"

    def heading(self, column: str) -> str:
        """Return the heading of a column."""
        return f"{column}, {self.name}" if self.name else column


@dataclass(frozen=True)
class Row:
    """A variant's cost and IoU in percent by heading, for one seed."""

    cost: Cost | None
    iou: Mapping[str, float]


def pictures_for(kind: Kind, scenes: int) -> list[Pictures]:
    """Return what a kind of ablation is measured on, `scenes` pictures of each."""
    if kind == "input":
        return [
            Pictures(name, SceneDataset(scenes, HELD_OUT, shape), (LQ_MEAN, CLEAR))
            for name, shape in WIDE.items()
        ]
    usual = Pictures("", held_out(scenes), (*_LEVELS, CLEAR))
    if kind == "recipe":
        return [usual, Pictures("released", usual.dataset, _LEVELS, "released")]
    return [usual]


def measure_variants(
    base: Checkpoint, trained: Mapping[str, tuple[Checkpoint, Cost]], kind: Kind, scenes: int
) -> dict[str, Row]:
    """Measure IoU without the enhancer and with each variant's; inputs run both ways.

    Args:
        base: the model whose SAM all variants share.
        trained: the variants of one seed by their names.
        kind: what was varied.
        scenes: number of held-out pictures of each kind.
    """
    segmenters: dict[str, Segmenter] = {}
    costs: dict[str, Cost] = {}
    for name in INPUTS if kind == "input" else (base.preset.input,):
        said = f", run with {name}" if kind == "input" else ""
        stages = ReferenceStages(prepared(base, name))
        encoder = SharedEncoder(stages)
        segmenters[WITHOUT + said] = StagedSegmenter(stages, enhance=False, encoder=encoder)
        for row, (checkpoint, cost) in trained.items():
            own = ReferenceStages(prepared(checkpoint, name))
            segmenters[row + said] = StagedSegmenter(own, enhance=True, encoder=encoder)
            costs[row + said] = cost
    found: dict[str, dict[str, float]] = {row: {} for row in segmenters}
    for pictures in pictures_for(kind, scenes):
        conditions = (CLEAR, *LQ) if CLEAR in pictures.columns else LQ
        plan = EvaluationPlan((PROMPT,), conditions, recipe=pictures.recipe)
        rows = evaluate(segmenters, pictures.dataset, plan)
        means = Results("nano", f"scenes:{scenes}", plan.seed, tuple(rows)).means()
        iou = {(mean.segmenter, mean.condition): 100 * mean.iou for mean in means}
        for row, cells in found.items():
            cells |= {pictures.heading(c): iou[row, c] for c in pictures.columns}
    return {row: Row(costs.get(row), cells) for row, cells in found.items()}


def ablation_markdown(seeds: Sequence[Mapping[str, Row]]) -> str:
    """Return the table: median cost, and mean IoU over the seeds with its standard deviation."""
    headings = list(next(iter(seeds[0].values())).iou)
    head = ("", "learnable parameters", "s / iteration", "peak GiB", *headings)
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name in seeds[0]:
        cells = [_spread([seed[name].iou[heading] for seed in seeds]) for heading in headings]
        costs = [cost for seed in seeds if (cost := seed[name].cost) is not None]
        lines.append(f"| {name} | " + " | ".join((*_cost_cells(costs), *cells)) + " |")
    return "\n".join(lines) + "\n"


def draw_ablation(kind: Kind, seeds: Sequence[Mapping[str, Row]], path: Path) -> None:
    """Write a PNG with IoU of each variant, beside that without the enhancer (the paper's Fig. 6).

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [name for name in seeds[0] if name != WITHOUT]
    every = next(iter(seeds[0].values())).iou
    shown = [heading for heading in every if heading.startswith((LQ_MEAN, CLEAR))]
    figure = Figure(figsize=(4.5 * len(shown), 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, heading in zip(figure.subplots(1, len(shown)), shown, strict=True):
        values = [[seed[name].iou[heading] for seed in seeds] for name in names]
        places = range(len(names))
        if kind in ("gamma", "rank"):  # a line between other rows would mean nothing
            axis.plot(places, [statistics.fmean(each) for each in values], "C1-")
        for place, name, each in zip(places, names, values, strict=True):
            colour = "C0" if name.startswith(WITHOUT) else "C1"
            axis.plot([place] * len(each), each, f"{colour}.", alpha=0.5)
            axis.plot(place, statistics.fmean(each), f"{colour}o")
        if WITHOUT in seeds[0]:
            plain = statistics.fmean(seed[WITHOUT].iou[heading] for seed in seeds)
            axis.axhline(plain, color="C0", linestyle="--", label=WITHOUT)
            axis.legend(frameon=False, fontsize=8)
        labels = [name.removeprefix(f"{kind} ").replace(", ", "\n") for name in names]
        axis.set_xticks(places, labels, fontsize=8, rotation=0 if len(names) < 6 else 90)
        axis.set_xlabel(kind)
        axis.set_ylabel("IoU, %")
        axis.set_title(heading, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="png")


def _cost_cells(costs: Sequence[Cost]) -> tuple[str, str, str]:
    if not costs:
        return "", "", ""
    seconds = statistics.median(cost.seconds for cost in costs)
    known = [cost.memory for cost in costs if cost.memory is not None]
    memory = f"{statistics.median(known):.2f}" if known else ""
    return f"{costs[0].parameters:,}", f"{seconds:.3f}", memory


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return mean + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")
