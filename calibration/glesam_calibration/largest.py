"""A dataset's largest objects alone: what every gate of this project is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glesam_evaluation.datasets import Dataset, Sample

OBJECTS = 3
"""As many as an export is verified on in each image."""


@dataclass(frozen=True)
class LargestObjects:
    """Every image of a dataset with its OBJECTS largest masks, largest first.

    A single pixel is a share of a small mask that no gate on the worst of all masks could allow.
    """

    dataset: Dataset

    @property
    def names(self) -> Sequence[str]:
        """The dataset's."""
        return self.dataset.names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """A sample with the masks that are kept."""
        sample = self.dataset[index]
        areas = np.count_nonzero(sample.masks, axis=(1, 2))
        kept = np.argsort(-areas, kind="stable")[:OBJECTS]
        return Sample(sample.name, sample.image, sample.masks[kept])
