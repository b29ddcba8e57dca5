"""What nano can do, measured on pictures it never saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import PartialState

from glesam_evaluation.conditions import DEFAULT, show
from glesam_evaluation.datasets import Dataset, SceneDataset
from glesam_evaluation.protocol import Plan, evaluate
from glesam_evaluation.results import Results
from glesam_export.checkpoints import Checkpoint
from glesam_export.families import family_of
from glesam_runtime.image import preprocess
from glesam_training.nano.coins import Coins
from glesam_training.reference_predictor import reference_segmenters

HELD_OUT = 900_000_000
"""Seed of the first held-out scene: no training's seed reaches it."""

PROMPTS = ("3-point", "box", "noise-box")
COLUMNS = ("clear", "LQ-1", "LQ-2", "LQ-3", "unseen mean")
SCENES = 200
"""Held-out scenes of a report."""


@dataclass(frozen=True)
class LatentError:
    """Mean squared error to the clear image's latent, in one condition.

    Attributes:
        condition: the low image's.
        before: of z_L.
        after: of z_H.
    """

    condition: str
    before: float
    after: float

    @property
    def lower(self) -> float:
        """By what share the enhancer lowers it; negative where it does harm."""
        return 1 - self.after / self.before


def held_out(count: int) -> SceneDataset:
    """Scenes that no training saw."""
    return SceneDataset(count, HELD_OUT)


def measure(
    checkpoint: Checkpoint, count: int, progress: Callable[[int, int], object]
) -> dict[str, Results]:
    """IoU on held-out scenes and on the coins, without and with the enhancer.

    Args:
        checkpoint: nano.
        count: number of scenes.
        progress: told about the scenes done.
    """
    both = reference_segmenters(checkpoint)
    plan = Plan(prompts=PROMPTS)
    scenes = evaluate(both, held_out(count), plan, progress)
    # All 24 coins: no draw among them.
    coins = evaluate(both, Coins(), Plan(prompts=PROMPTS, max_masks=24))
    return {
        "held-out scenes": Results("nano", f"scenes:{count}@{HELD_OUT}", 0, tuple(scenes)),
        "coins": Results("nano", "scikit-image's coins", 0, tuple(coins)),
    }


def latent_errors(checkpoint: Checkpoint, dataset: Dataset, seed: int = 0) -> list[LatentError]:
    """How near to the clear latent the enhancer brings the low one, by condition.

    Args:
        checkpoint: any GleSAM.
        dataset: pictures.
        seed: of the degradations.
    """
    device = PartialState().device
    encoder, enhancer = checkpoint.encoder().to(device), checkpoint.enhancer().to(device)
    rules = family_of(checkpoint.preset).preprocessing(checkpoint.preset)
    conditions = [condition for condition in DEFAULT if condition != "clear"]
    sums = np.zeros((len(conditions), 2))
    with torch.inference_mode():
        for index in range(len(dataset)):
            sample = dataset[index]
            versions = [sample.image]
            versions += [show(sample.image, c, seed, sample.name) for c in conditions]
            tensors = [preprocess(image, rules).tensor for image in versions]
            images = torch.from_numpy(np.concatenate(tensors)).to(device)
            clear, *low = encoder(images).split(1)
            for row, z_low in enumerate(low):
                pair = (z_low, enhancer(z_low))
                sums[row] += [float((z - clear).square().mean()) for z in pair]
    means = sums / len(dataset)
    return [
        LatentError(condition, float(before), float(after))
        for condition, (before, after) in zip(conditions, means, strict=True)
    ]


def markdown(results: Mapping[str, Results], errors: Sequence[LatentError]) -> str:
    """The report: IoU by data, prompt and condition, and the latents' errors."""
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
