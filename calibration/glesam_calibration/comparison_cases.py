"""Choose what two bundles are compared on: images of every quality, prompts, and ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glesam_calibration.calibration_set import LEVELS
from glesam_evaluation.conditions import show
from glesam_evaluation.datasets import Dataset, Sample
from glesam_evaluation.prompting import draw_prompts
from glesam_evaluation.protocol import EvaluationPlan, chosen_masks
from glesam_runtime.image import Geometry, geometry_of
from glesam_runtime.manifest import Level, Manifest
from glesam_runtime.prompts import check_prompts, prompt_tensors

PROMPTS = ("3-point", "box")


@dataclass(frozen=True)
class Cases:
    """The cases that bundles are compared on: images of a dataset, each at each level."""

    dataset: Dataset
    count: int
    """Number of images."""
    first: int = 0
    prompts: tuple[str, ...] = PROMPTS
    levels: tuple[Level, ...] = LEVELS
    max_masks: int = 10
    seed: int = 0

    def each(self) -> Iterator[tuple[int, Level]]:
        """Yield image number and level of each case."""
        for index in range(self.first, min(self.first + self.count, len(self.dataset))):
            for level in self.levels:
                yield index, level

    def image(self, index: int, level: Level) -> NDArray[np.uint8]:
        """Return the degraded image of a case, uint8 RGB [H,W,3]."""
        sample = self.dataset[index]
        return show(sample.image, level, self.seed, sample.name)


@dataclass(frozen=True, eq=False)
class PromptedCase:
    """The prompts of a case, and its ground truth."""

    image: str
    level: Level
    numbers: Sequence[int]
    truth: NDArray[np.bool_]
    geometry: Geometry
    prompts: Mapping[str, Mapping[str, NDArray[np.float32]]]


def prompt_case(cases: Cases, index: int, level: Level, manifest: Manifest) -> PromptedCase:
    """Draw the prompts of a case, and convert them to tensors for the decoder."""
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
    return PromptedCase(sample.name, level, numbers, truth, geometry, prompts)


OBJECTS = 3
"""Number of masks per image; an export is verified on the same number."""


@dataclass(frozen=True)
class LargestObjects:
    """A dataset with only the OBJECTS largest masks of each image, the largest first.

    In a small mask a single pixel changes the IoU more than a gate on the worst mask allows.
    """

    dataset: Dataset

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the samples."""
        return self.dataset.names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample with its largest masks."""
        sample = self.dataset[index]
        areas = np.count_nonzero(sample.masks, axis=(1, 2))
        kept = np.argsort(-areas, kind="stable")[:OBJECTS]
        return Sample(sample.name, sample.image, sample.masks[kept])
