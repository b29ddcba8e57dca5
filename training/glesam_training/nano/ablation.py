"""Train and measure nano's Algorithm 1 with one thing varied: gamma, rank, levels, or its parts.

SAM and the base U-Net are those of the built-in nano. Only stage 1 is trained, once for each
variant and seed, on the same pictures and with the same prompts.
"""

from __future__ import annotations

import json
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from glesam_evaluation.plot import require_matplotlib
from glesam_evaluation.protocol import EvaluationPlan, Segmenter, evaluate
from glesam_evaluation.results import Results
from glesam_evaluation.segmenters import WITHOUT, SharedEncoder, StagedSegmenter
from glesam_export.checkpoints import Checkpoint, write
from glesam_export.enhancer.reference import Enhancer
from glesam_runtime.staging import staged_file
from glesam_training.nano.held_out_report import held_out
from glesam_training.nano.recipe import Recipe
from glesam_training.nano.starting_point import fit_ends, pairs_of
from glesam_training.nano.steps import paint_scenes, stage_jobs
from glesam_training.nano.variants import Kind, Variant, new_enhancer
from glesam_training.objectives import train_adapters
from glesam_training.progress_display import ShowProgress
from glesam_training.reference_segmenters import ReferenceStages
from glesam_training.train import stored_latents, train_enhancer
from glesam_training.trained_checkpoint import TrainedCheckpoint

CONDITIONS = ("clear", "LQ-1", "LQ-2", "LQ-3")
COLUMNS = ("LQ-3", "LQ-2", "LQ-1", "LQ mean", "clear")
PROMPT = "3-point"
COST_FILE, FITTED_FILE = "cost.json", "fitted.safetensors"


@dataclass(frozen=True)
class Cost:
    """The cost of a training (the paper's Table 9).

    Attributes:
        parameters: number of trained parameters.
        seconds: mean time of an iteration.
        memory: peak memory in GiB: the GPU's, or the process's on a CPU, where it includes what
            earlier trainings of the process left.
    """

    parameters: int
    seconds: float
    memory: float | None


@dataclass(frozen=True)
class Row:
    """A variant's cost and IoU in percent by condition, for one seed."""

    cost: Cost | None
    iou: Mapping[str, float]


def train_variant(
    base: Checkpoint, variant: Variant, recipe: Recipe, folder: Path, seed: int, show: ShowProgress
) -> tuple[Checkpoint, Cost]:
    """Train stage 1 of one variant, unless the folder holds the result.

    Args:
        base: the model whose SAM and base U-Net are used.
        variant: what is different.
        recipe: sizes and lengths.
        folder: for scenes, latents and states.
        seed: seed of Algorithm 1.
        show: called with the progress.
    """
    recipe = replace(recipe, scenes=recipe.pictures, levels=variant.levels)
    scenes = paint_scenes(folder, recipe, 0, show)
    settings = replace(recipe.enhancer, seed=seed)
    name = f"{variant.name}, seed {seed}"
    job = stage_jobs(folder, scenes, recipe, settings, show)(re.sub(r"[^\w.+-]+", "-", name))
    enhancer = new_enhancer(base, variant, seed)
    start = TrainedCheckpoint(base, enhancer)
    latents = stored_latents(start, job, high_res=True)
    job.folder.mkdir(parents=True, exist_ok=True)
    fitted = job.folder / FITTED_FILE
    if variant.fitted and not fitted.is_file():
        fit_ends(enhancer, pairs_of(latents, recipe.fit_pairs, seed), seed)
        write.save_lora(fitted, enhancer.unet)
    elif variant.fitted:
        _read_adapters(enhancer, fitted)
    path = job.folder / COST_FILE
    _forget_peak()
    began = time.perf_counter()
    trained = train_enhancer(start, job, recipe.mask_weight)
    seconds = (time.perf_counter() - began) / settings.iterations
    if not path.is_file():  # otherwise the training was found and took no time
        train_adapters(trained)
        count = sum(p.numel() for p in trained.parameters() if p.requires_grad)
        trained.requires_grad_(False)
        with staged_file(path) as partial:
            partial.write_text(json.dumps(asdict(Cost(count, seconds, _peak()))), encoding="utf-8")
    cost = Cost(**json.loads(path.read_text(encoding="utf-8")))
    return TrainedCheckpoint(base, trained), cost


def measure_variants(
    base: Checkpoint, trained: Mapping[str, tuple[Checkpoint, Cost]], scenes: int
) -> dict[str, Row]:
    """Measure IoU on held-out scenes: without the enhancer, and with each variant's."""
    stages = ReferenceStages(base)
    encoder = SharedEncoder(stages)
    segmenters: dict[str, Segmenter] = {
        WITHOUT: StagedSegmenter(stages, enhance=False, encoder=encoder)
    }
    for name, (checkpoint, _) in trained.items():
        own = ReferenceStages(checkpoint)
        segmenters[name] = StagedSegmenter(own, enhance=True, encoder=encoder)
    plan = EvaluationPlan((PROMPT,), CONDITIONS)
    rows = evaluate(segmenters, held_out(scenes), plan)
    means = Results("nano", f"scenes:{scenes}", plan.seed, tuple(rows)).means()
    costs = {name: cost for name, (_, cost) in trained.items()}
    return {
        name: Row(costs.get(name), {m.condition: 100 * m.iou for m in means if m.segmenter == name})
        for name in segmenters
    }


def ablation_markdown(seeds: Sequence[Mapping[str, Row]]) -> str:
    """Return the table: cost of the first seed, mean IoU over the seeds with its deviation."""
    head = ("", "learnable parameters", "s / iteration", "peak GiB", *COLUMNS)
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for name, row in seeds[0].items():
        cost = ("", "", "")
        if row.cost is not None:
            memory = "" if row.cost.memory is None else f"{row.cost.memory:.2f}"
            cost = (f"{row.cost.parameters:,}", f"{row.cost.seconds:.3f}", memory)
        cells = [_spread([seed[name].iou[column] for seed in seeds]) for column in COLUMNS]
        lines.append(f"| {name} | " + " | ".join((*cost, *cells)) + " |")
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
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    for axis, column in zip(figure.subplots(1, 2), ("LQ mean", "clear"), strict=True):
        values = [[seed[name].iou[column] for seed in seeds] for name in names]
        places = range(len(names))
        axis.plot(places, [statistics.fmean(each) for each in values], "C1o-", label="with GLE")
        for place, each in zip(places, values, strict=True):
            axis.plot([place] * len(each), each, "C1.", alpha=0.5)
        plain = statistics.fmean(seed[WITHOUT].iou[column] for seed in seeds)
        axis.axhline(plain, color="C0", linestyle="--", label=WITHOUT)
        axis.set_xticks(places, [name.removeprefix(f"{kind} ") for name in names], fontsize=8)
        axis.set_xlabel(kind)
        axis.set_ylabel("IoU, %")
        axis.set_title(column, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, format="png")


def _read_adapters(enhancer: Enhancer, path: Path) -> None:
    """Read what a training started from, which another machine may fit with other last bits."""
    stored = load_file(path)
    for name, (a, b, _) in write.adapters(enhancer.unet).items():
        a.copy_(stored[f"unet.{name}.lora_A.weight"])
        b.copy_(stored[f"unet.{name}.lora_B.weight"])


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return mean + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _forget_peak() -> None:
    """Start a new measurement of peak memory."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # `_peak` then returns the peak of the process so far, or None
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> float | None:
    """Return the peak memory in GiB since the last measurement began; None if it is not known."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii"))
    return int(found[1]) / 2**20 if found else None
