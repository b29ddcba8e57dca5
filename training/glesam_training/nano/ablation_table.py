"""Measure the paper's Table 5 at nano's size: what each part of GleSAM adds, over several seeds.

SAM and its diffusion base are trained once. The seed belongs to Algorithm 1: it decides how the
adapters start, the examples and the prompts. All rows train on the same pictures. The controls
(SAM-FT) differ from GLE in the missing enhancer only: stage 1 has the mask loss too, so their
decoders train for as many iterations as both stages of GLE together. One more row has all of GLE
on an untrained base.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glesam_evaluation.datasets import Dataset
from glesam_evaluation.protocol import EvaluationPlan, Segmenter, evaluate
from glesam_evaluation.results import Mean, Results
from glesam_evaluation.segmenters import SharedEncoder, StagedSegmenter
from glesam_export.checkpoints import Checkpoint
from glesam_export.presets import sam_preset
from glesam_training.nano.recipe import Recipe
from glesam_training.nano.starting_point import starting_checkpoint
from glesam_training.nano.steps import make_base, make_sam, paint_scenes, stage_jobs
from glesam_training.objectives import DecoderPart
from glesam_training.progress_display import ShowProgress
from glesam_training.reference_segmenters import ReferenceStages
from glesam_training.train import train_decoder, train_enhancer
from glesam_training.trained_checkpoint import TrainedCheckpoint

UNTRAINED = "GLE, untrained base"
"""The same adapters and the same training on a base U-Net with random weights."""

METHODS = ("SAM", "SAM-FT-T", "SAM-FT-D", "GLE", UNTRAINED, "GLE-FT-T", "GLE-FT-D")
COLUMNS = ("LQ-3", "LQ-2", "LQ-1", "LQ mean", "visibility mean", "clear")
PROMPT = "3-point"
PARTS: Mapping[str, DecoderPart] = {"T": "tokens", "D": "all"}


@dataclass(frozen=True)
class Method:
    """A row of the table: weights, and whether the enhancer runs."""

    checkpoint: Checkpoint
    enhance: bool


def train_methods(
    folder: Path, recipe: Recipe, nano_seed: int, seed: int, show: ShowProgress
) -> dict[str, Method]:
    """Train every row for one seed, skipping what is already trained.

    Args:
        folder: nano's folder.
        recipe: nano's recipe.
        nano_seed: nano's seed.
        seed: seed of Algorithm 1.
        show: called with the progress.
    """
    scenes = paint_scenes(folder, recipe, nano_seed, show)
    sam = make_sam(folder, scenes, recipe, nano_seed, show)
    first = stage_jobs(folder, scenes, recipe, replace(recipe.enhancer, seed=seed), show)

    def gle_on(base_iterations: int, home: Path, name: str) -> tuple[Checkpoint, Checkpoint]:
        """Return GLE before and after stage 1, on a base U-Net trained this long."""
        settings = replace(recipe.base, iterations=base_iterations, seed=nano_seed)
        base = make_base(home, scenes, settings, recipe.crop, show)
        learn = first(f"{name} {seed}")
        preset = sam_preset(recipe.preset)
        start = starting_checkpoint(home, sam, base, seed, learn, recipe.fit_pairs, preset)
        enhancer = train_enhancer(start, learn, recipe.mask_weight)
        return start, TrainedCheckpoint(start, enhancer)

    start, gle = gle_on(recipe.base.iterations, folder, "GLE")
    _, untrained = gle_on(0, folder / UNTRAINED, UNTRAINED)
    methods = {
        "SAM": Method(start, False),
        "GLE": Method(gle, True),
        UNTRAINED: Method(untrained, True),
    }
    both = recipe.enhancer.iterations + recipe.decoder.iterations
    for name, before, iterations in (("SAM", start, both), ("GLE", gle, recipe.decoder.iterations)):
        settings = replace(recipe.decoder, iterations=iterations, seed=seed)
        second = stage_jobs(folder, scenes, recipe, settings, show)
        enhance = methods[name].enhance
        for suffix, part in PARTS.items():
            full_name = f"{name}-FT-{suffix}"
            job = second(f"{full_name} {seed}")
            decoder = train_decoder(before, job, part, enhance=enhance)
            methods[full_name] = Method(TrainedCheckpoint(before, decoder=decoder), enhance)
    return {name: methods[name] for name in METHODS}


def segmenters(methods: Mapping[str, Method]) -> dict[str, Segmenter]:
    """Return the rows as segmenters that share one encoder call per image."""
    stages = {name: ReferenceStages(method.checkpoint) for name, method in methods.items()}
    encoder = SharedEncoder(stages[METHODS[0]])
    return {
        name: StagedSegmenter(stages[name], enhance=method.enhance, encoder=encoder)
        for name, method in methods.items()
    }


def evaluate_methods(
    methods: Mapping[str, Method], dataset: Dataset, name: str, seed: int, plan: EvaluationPlan
) -> Results:
    """Evaluate the rows of one seed on held-out pictures."""
    rows = evaluate(segmenters(methods), dataset, plan)
    return Results(f"nano, seed {seed} of Algorithm 1", name, plan.seed, tuple(rows))


def table_markdown(results: Sequence[Results]) -> str:
    """Return mean IoU over seeds in percent, with the sample standard deviation, as Markdown."""
    by_seed = [_cells(result.means()) for result in results]
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for method in METHODS:
        cells = [_spread([seed[method, column] for seed in by_seed]) for column in COLUMNS]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    lines += ["", "| difference | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    for better, control in _compared():
        cells = [
            _spread([seed[better, column] - seed[control, column] for seed in by_seed], sign=True)
            for column in COLUMNS
        ]
        lines.append(f"| {better} over {control} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _compared() -> Iterator[tuple[str, str]]:
    yield "GLE", "SAM"
    yield "GLE", "SAM-FT-D"
    yield "GLE", UNTRAINED
    yield "GLE-FT-T", "SAM-FT-T"
    yield "GLE-FT-D", "SAM-FT-D"


def _cells(means: Sequence[Mean]) -> dict[tuple[str, str], float]:
    return {(m.segmenter, m.condition): 100 * m.iou for m in means if m.prompt == PROMPT}


def _spread(values: Sequence[float], sign: bool = False) -> str:
    mean = statistics.fmean(values)
    spelled = f"{mean:+.2f}" if sign else f"{mean:.2f}"
    return spelled + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")
