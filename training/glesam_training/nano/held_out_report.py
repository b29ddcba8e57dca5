"""Measure nano on pictures that it never saw, and report the figures as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState

from glesam_evaluation.conditions import WITH_VISIBILITY, show
from glesam_evaluation.datasets import Dataset, SceneDataset
from glesam_evaluation.protocol import EvaluationPlan, evaluate
from glesam_evaluation.results import Results
from glesam_export.checkpoints import Checkpoint
from glesam_export.families import family_of, named_features
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.image import preprocess
from glesam_training.nano.coins import Coins
from glesam_training.reference_segmenters import reference_segmenters

HELD_OUT = 900_000_000
"""Seed of the first held-out scene; the seeds of training scenes stay below it."""

PROMPTS = ("3-point", "box", "noise-box")
COLUMNS = ("clear", "LQ-1", "LQ-2", "LQ-3", "visibility mean")
SCENES = 200
"""Number of held-out scenes in a report."""


@dataclass(frozen=True)
class LatentError:
    """Mean squared error to the clear image's latent, under one condition.

    Attributes:
        condition: the degradation.
        before: error of z_L.
        after: error of z_H.
    """

    condition: str
    before: float
    after: float

    @property
    def lower(self) -> float:
        """Return the share by which the enhancer lowers the error; negative if it raises it."""
        return 1 - self.after / self.before


def held_out(count: int) -> SceneDataset:
    """Return scenes that no training saw."""
    return SceneDataset(count, HELD_OUT)


def measure_nano(
    checkpoint: Checkpoint, count: int, progress: Callable[[int, int], object]
) -> dict[str, Results]:
    """Measure IoU on held-out scenes and on the coins, without and with the enhancer.

    Args:
        checkpoint: nano.
        count: number of scenes.
        progress: called with the number of scenes done.
    """
    both, name = reference_segmenters(checkpoint), checkpoint.preset.name
    plan = EvaluationPlan(PROMPTS, WITH_VISIBILITY)
    scenes = evaluate(both, held_out(count), plan, progress)
    # 24 masks: all coins, so that none is left out at random.
    coins = evaluate(both, Coins(), EvaluationPlan(PROMPTS, WITH_VISIBILITY, max_masks=24))
    return {
        "held-out scenes": Results(
            checkpoint.preset.name, f"scenes:{count}@{HELD_OUT}", 0, tuple(scenes)
        ),
        "coins": Results(name, "scikit-image's coins", 0, tuple(coins)),
    }


def latent_errors(checkpoint: Checkpoint, dataset: Dataset, seed: int = 0) -> list[LatentError]:
    """Return the error of the low latent and of the enhanced one, by condition.

    Args:
        checkpoint: any GleSAM.
        dataset: pictures.
        seed: seed of the degradations.
    """
    device = PartialState().device
    encoder, enhancer = checkpoint.encoder().to(device), checkpoint.enhancer().to(device)
    rules = family_of(checkpoint.preset).preprocessing(checkpoint.preset)
    conditions = [condition for condition in WITH_VISIBILITY if condition != "clear"]
    sums = np.zeros((len(conditions), 2))
    with torch.inference_mode():
        for index in range(len(dataset)):
            sample = dataset[index]
            versions = [sample.image]
            versions += [show(sample.image, c, seed, sample.name) for c in conditions]
            tensors = [preprocess(image, rules).tensor for image in versions]
            images = torch.from_numpy(np.concatenate(tensors)).to(device)
            clear, *low = named_features(encoder(images))[EMBEDDINGS].chunk(len(images))
            for row, z_low in enumerate(low):
                pair = (z_low, enhancer(z_low))
                sums[row] += [float((z - clear).square().mean()) for z in pair]
    means = sums / len(dataset)
    return [
        LatentError(condition, float(before), float(after))
        for condition, (before, after) in zip(conditions, means, strict=True)
    ]


def report_markdown(results: Mapping[str, Results], errors: Sequence[LatentError]) -> str:
    """Return the report: IoU by data, prompt and condition, then the latent errors."""
    lines = ["| data | prompt | enhancer | " + " | ".join(COLUMNS) + " |"]
    lines.append("|---|---|---|" + "---:|" * len(COLUMNS))
    for data, result in results.items():
        cells = {(m.segmenter, m.prompt, m.condition): 100 * m.iou for m in result.means()}
        for prompt in result.prompts:
            for segmenter in result.segmenters:
                figures = [f"{cells[segmenter, prompt, c]:.2f}" for c in COLUMNS]
                name = segmenter.removesuffix(" enhancer")
                lines.append(f"| {data} | {prompt} | {name} | " + " | ".join(figures) + " |")
    lines += ["", "| condition | MSE of z_L | MSE of z_H | lower by |", "|---|---:|---:|---:|"]
    for error in errors:
        row = (error.condition, f"{error.before:.4f}", f"{error.after:.4f}", f"{error.lower:.1%}")
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"
