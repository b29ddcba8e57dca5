"""Draw random images and prompts for the Python predictor and for run_cases.cpp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

SLIVERS = ((1, 1), (1, 5000), (5000, 1))
"""Height and width of the first cases."""
KINDS = ("points", "box", "points and box", "mask", "points and mask")


@dataclass(frozen=True)
class Case:
    """An image and B prompts that have the same parts."""

    image: NDArray[np.uint8]
    prompts: dict[str, NDArray[Any]]
    """point_coords [B, N, 2], point_labels [B, N], box [B, 4], mask_input [B, 1, s, s]."""
    multimask: bool
    stride_excess: int

    def tensors(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the tensors for the file that run_cases.cpp reads."""
        names = {
            "point_coords": "points",
            "point_labels": "labels",
            "box": "boxes",
            "mask_input": "mask",
        }
        made = {f"{name}.{names[key]}": value for key, value in self.prompts.items()}
        made[f"{name}.image"] = self.image
        made[f"{name}.flags"] = np.asarray([self.multimask, self.stride_excess], np.uint8)
        return made


def random_case(index: int, side: int) -> Case:
    """Return case `index`: any size from one pixel, any proportion, each mix of prompts in turn.

    The first cases have the sizes of `SLIVERS`.

    Args:
        index: also the seed.
        side: S/4 of the bundle.
    """
    rng = np.random.default_rng(index)
    height, width = (int(rng.integers(1, 60 if rng.random() < 0.2 else 400)) for _ in "hw")
    if index < len(SLIVERS):
        height, width = SLIVERS[index]
    kind = KINDS[index % len(KINDS)]
    batch = int(rng.integers(1, 4))
    prompts: dict[str, NDArray[Any]] = {}
    if "points" in kind:
        count = int(rng.integers(1, 5))
        prompts["point_coords"] = rng.random((batch, count, 2)) * (width, height)
        prompts["point_labels"] = rng.integers(0, 2, (batch, count)).astype(np.float32)
    if "box" in kind:
        low = rng.random((batch, 2)) * 0.6 * (width, height)
        high = low + (0.05 + rng.random((batch, 2)) * 0.4) * (width, height)
        prompts["box"] = np.concatenate([low, high], axis=1)
    if "mask" in kind:
        prompts["mask_input"] = rng.normal(0, 8, (batch, 1, side, side)).astype(np.float32)
    return Case(_picture(rng, height, width), prompts, index % 3 == 0, index % 7)


def _picture(rng: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """Return blots of colour with some noise, which have edges at every scale."""
    coarse = rng.integers(0, 256, (int(rng.integers(2, 12)), int(rng.integers(2, 12)), 3))
    blots = Image.fromarray(coarse.astype(np.uint8)).resize((width, height), Image.BICUBIC)
    noise = rng.normal(0, rng.random() * 30, (height, width, 3))
    return np.clip(np.asarray(blots) + noise, 0, 255).astype(np.uint8)
