"""What two bundles are compared on: images of every quality, prompts, and the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glesam_calibration.images import LEVELS
from glesam_evaluation.conditions import show
from glesam_evaluation.datasets import Dataset
from glesam_evaluation.prompting import draw_prompts
from glesam_evaluation.protocol import EvaluationPlan, chosen_masks
from glesam_runtime.image import Geometry, geometry_of
from glesam_runtime.manifest import Level, Manifest
from glesam_runtime.prompts import check_prompts, prompt_tensors

PROMPTS = ("3-point", "box")


@dataclass(frozen=True)
class Cases:
    """What bundles are compared on: the images of a dataset, each at each level."""

    dataset: Dataset
    count: int
    """Of images."""
    first: int = 0
    prompts: tuple[str, ...] = PROMPTS
    levels: tuple[Level, ...] = LEVELS
    max_masks: int = 10
    seed: int = 0

    def each(self) -> Iterator[tuple[int, Level]]:
        """Image numbers and levels."""
        for index in range(self.first, min(self.first + self.count, len(self.dataset))):
            for level in self.levels:
                yield index, level

    def image(self, index: int, level: Level) -> NDArray[np.uint8]:
        """What is shown, uint8 RGB [H,W,3]."""
        sample = self.dataset[index]
        return show(sample.image, level, self.seed, sample.name)


@dataclass(frozen=True, eq=False)
class Question:
    """A case's prompts, and the truth about it."""

    image: str
    level: Level
    numbers: Sequence[int]
    truth: NDArray[np.bool_]
    geometry: Geometry
    prompts: Mapping[str, Mapping[str, NDArray[np.float32]]]


def ask(cases: Cases, index: int, level: Level, manifest: Manifest) -> Question:
    """Draw the prompts of a case, and turn them into the decoder's tensors."""
    sample = cases.dataset[index]
    numbers = chosen_masks(sample, EvaluationPlan(seed=cases.seed, max_masks=cases.max_masks))
    truth = sample.masks[numbers]
    rules = manifest.preprocessing
    height, width = sample.image.shape[:2]
    geometry = geometry_of(height, width, rules.image_size, rules.resize)
    prompts = {}
    for kind in cases.prompts:
        drawn = draw_prompts(truth, numbers, kind, cases.seed, sample.name)
        batch = check_prompts(geometry, drawn.points, drawn.labels, drawn.boxes)
        prompts[kind] = prompt_tensors(batch, geometry, manifest.coordinates)
    return Question(sample.name, level, numbers, truth, geometry, prompts)
