"""Turn images with masks into the tensors that Algorithm 1 learns from.

Example i depends on its number and the seed alone: which image it shows, how that is degraded,
which masks and prompts it has. So every worker, every process and a resumed training see the same
examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from glesam_evaluation.datasets import Dataset, Sample
from glesam_evaluation.degrade import degrade, recipe_settings
from glesam_evaluation.prompting import noise_box, random_points, tight_box
from glesam_export.families import Preset, family_of
from glesam_runtime.image import geometry_of, preprocess
from glesam_runtime.prompts import BACKGROUND, BOX_CORNERS, FOREGROUND, PADDING

MAX_POINTS = 10
"""Points per example, of which a step uses the first few; the paper tests up to ten."""

CLEAR = 0
"""The level of an image that is not degraded."""

DRAWN = -1
"""The level of an image whose down-sampling rate is drawn, as the released recipes do."""

SMALLEST = 16
"""Masks with fewer pixels of the original image than this are not used."""


@dataclass(frozen=True)
class ExampleOptions:
    """The options that decide what examples contain.

    Attributes:
        seed: seed of everything random except what `low_seed` decides.
        low_seed: seed of the degradations; None means `seed`. With a fixed one, trainings with
            different seeds share stored latents.
        masks: masks per picture, drawn anew every time.
        levels: the LQSeg levels that x_L is drawn from; CLEAR leaves it clear, DRAWN draws a rate.
        recipe: recipe of the degradations, a key of `degrade.RECIPES`.
        jitter: largest shift of a box's corners, as a share of the box's size.
        variants: number of degraded versions per picture; None makes a new one each epoch.
        far: share of the points outside a mask that lie anywhere there; the others are near it.
    """

    seed: int = 0
    low_seed: int | None = None
    masks: int = 4
    levels: tuple[int, ...] = (1, 2, 3)
    jitter: float = 0.2
    variants: int | None = None
    far: float = 0.0
    recipe: str = "paper"


class Examples(torch.utils.data.Dataset[dict[str, Tensor]]):
    """A given number of examples of a dataset; every picture comes once per epoch.

    An example holds `clear` and `low` [3, S, S] float32 (x_H and x_L, ready for the encoder),
    `target` [B, S/4, S/4] (the coverage of each mask), `points` [B, 10, 2] inside the mask,
    `outside` [B, 10, 2] outside it, and `boxes` [B, 4], in (x, y) of resized pixels.

    Args:
        dataset: pictures with masks.
        preset: the SAM whose preprocessing applies.
        count: number of examples.
        options: what the examples are made of.
    """

    def __init__(
        self, dataset: Dataset, preset: Preset, count: int, options: ExampleOptions
    ) -> None:
        self.dataset, self.options, self.count = dataset, options, count
        self.preset, self.rules = preset, family_of(preset).preprocessing(preset)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        options = self.options
        epoch, place = divmod(number, len(self.dataset))
        index = int(_order(options.seed, epoch, len(self.dataset))[place])
        variant = epoch if options.variants is None else epoch % options.variants
        sample = self.dataset[index]
        rng = np.random.default_rng((options.seed, 2, number))
        chosen = _chosen(sample.masks, options.masks, rng)
        prompts = [self._prompt(sample.masks[k], rng) for k in chosen]
        stacked = {key: np.stack([p[key] for p in prompts]) for key in prompts[0]}
        height, width = sample.image.shape[:2]
        resized = geometry_of(height, width, self.rules.image_size, self.rules.resize).resized
        scale = np.asarray(resized[::-1]) / (width, height)
        target = np.stack([self._coverage(mask, resized) for mask in stacked.pop("mask")])
        arrays = {key: (v.reshape(-1, 2) * scale).reshape(v.shape) for key, v in stacked.items()}
        arrays |= {"target": target} | self.inputs(sample, index, variant)
        tensors = {key: torch.from_numpy(np.float32(value)) for key, value in arrays.items()}
        return tensors | {"number": torch.tensor(number)}

    @property
    def low_seed(self) -> int:
        """Return the seed of the degradations."""
        options = self.options
        return options.seed if options.low_seed is None else options.low_seed

    def level(self, index: int, variant: int) -> int:
        """Return the level of a picture's version; all levels come equally often."""
        return self.options.levels[(index + variant) % len(self.options.levels)]

    def inputs(
        self, sample: Sample, index: int, variant: int
    ) -> dict[str, npt.NDArray[np.floating[Any]]]:
        """Return the encoder's inputs: the picture and one of its degraded versions."""
        clear = preprocess(sample.image, self.rules).tensor[0]
        level = self.level(index, variant)
        if level == CLEAR:
            return {"clear": clear, "low": clear}
        rng = np.random.default_rng((self.low_seed, 3, index, variant))
        low = degrade(
            sample.image,
            level=None if level == DRAWN else level,
            seed=int(rng.integers(2**31)),
            settings=recipe_settings(self.options.recipe),
        )
        return {"clear": clear, "low": preprocess(low, self.rules).tensor[0]}

    def _prompt(
        self, mask: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> dict[str, npt.NDArray[Any]]:
        height, width = mask.shape
        box = noise_box(tight_box(mask), self.options.jitter * rng.uniform(), rng, height, width)
        return {
            "mask": mask,
            "points": random_points(mask, MAX_POINTS, rng),
            "outside": self._outside(mask, rng),
            "boxes": np.asarray(box, np.float64),
        }

    def _outside(
        self, mask: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> npt.NDArray[np.floating[Any]]:
        """Return background points [10, 2], near the object (half its size) or anywhere."""
        x0, y0, x1, y1 = tight_box(mask)
        reach_x, reach_y = (x1 - x0) / 2, (y1 - y0) / 2
        near = np.zeros_like(mask)
        near[
            max(0, int(y0 - reach_y)) : int(y1 + reach_y) + 1,
            max(0, int(x0 - reach_x)) : int(x1 + reach_x) + 1,
        ] = True
        near &= ~mask
        anywhere = ~mask if not mask.all() else mask
        points = random_points(near if near.any() else anywhere, MAX_POINTS, rng)
        if self.options.far:
            strays = rng.uniform(size=(MAX_POINTS, 1)) < self.options.far
            points = np.where(strays, random_points(anywhere, MAX_POINTS, rng), points)
        return points

    def _coverage(
        self, mask: npt.NDArray[np.bool_], resized: tuple[int, int]
    ) -> npt.NDArray[np.float32]:
        """Return a mask in the graph's square, at the resolution of the decoder's logits."""
        size = self.rules.image_size
        square = np.zeros((size, size), np.float32)
        height, width = resized
        square[:height, :width] = cv2.resize(
            mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
        )
        return np.asarray(cv2.resize(square, (size // 4, size // 4), interpolation=cv2.INTER_AREA))


PROMPTS = ("points", "box")
"""Half of the prompts are one to six points inside the mask, of which a quarter has up to three
points outside it as well. The other half are boxes."""

CORRECTED = ("corrected",)
"""Prompts of points inside the mask and always one to three points outside it."""


def draw_prompts(
    batch: dict[str, Tensor],
    rng: np.random.Generator,
    kinds: Sequence[str] = PROMPTS,
    padded_boxes: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draw one kind of prompt for a whole batch.

    Args:
        batch: a collated batch of examples.
        rng: decides the kind and the number of points.
        kinds: the kinds to choose from, `PROMPTS` or `CORRECTED`.
        padded_boxes: whether a padding point follows a box, as SAM 2 has it.

    Returns:
        Coordinates [N, B, P, 2] and labels [N, B, P] as in the contract.
    """
    kind = rng.choice(kinds)
    if kind == "box":
        boxes = batch["boxes"]
        coords = boxes.reshape(*boxes.shape[:-1], 2, 2)
        corners = [float(label) for label in BOX_CORNERS]
        if padded_boxes:
            coords = torch.cat([coords, torch.zeros_like(coords[:, :, :1])], dim=2)
            corners.append(float(PADDING))
        labels = torch.tensor(corners, dtype=coords.dtype, device=coords.device)
        return coords, labels.expand(*coords.shape[:-1])
    inside = int(rng.integers(1, 7))
    corrected = rng.uniform() < 0.25 or kind == "corrected"
    outside = int(rng.integers(1, 4)) if corrected else 0
    coords = torch.cat([batch["points"][:, :, :inside], batch["outside"][:, :, :outside]], dim=2)
    coords = torch.cat([coords, torch.zeros_like(coords[:, :, :1])], dim=2)
    row = [float(FOREGROUND)] * inside + [float(BACKGROUND)] * outside + [float(PADDING)]
    labels = torch.tensor(row, dtype=coords.dtype, device=coords.device)
    return coords, labels.expand(*coords.shape[:-1])


def with_prompts(
    examples: list[dict[str, Tensor]],
    kinds: Sequence[str] = PROMPTS,
    padded_boxes: bool = False,
    size: int = 1,
) -> dict[str, Tensor]:
    """Collate a batch and draw one kind of prompt for it, seeded by its first example's number.

    Args:
        examples: consecutive examples: a batch, or one process's share of it.
        kinds: the kinds to choose from.
        padded_boxes: whether a padding point follows a box.
        size: number of examples of the whole batch, so that all its shares have the same prompts;
            1 takes the first of `examples` as the first of the batch.
    """
    batch = {key: torch.stack([example[key] for example in examples]) for key in examples[0]}
    number = int(batch["number"][0])
    rng = np.random.default_rng((4, number - number % size))
    coords, labels = draw_prompts(batch, rng, kinds, padded_boxes)
    # Contiguous copies: a view that repeats a row cannot be pinned for a GPU.
    batch["coords"], batch["labels"] = coords.contiguous(), labels.contiguous()
    return batch


def prompts_for(
    preset: Preset, kinds: Sequence[str] = PROMPTS, size: int = 1
) -> Callable[[list[dict[str, Tensor]]], dict[str, Tensor]]:
    """Return `with_prompts` for the prompts that a SAM takes, and batches of `size` examples."""
    padded = family_of(preset).coordinates(preset).box == "two_points_padded"
    return partial(with_prompts, kinds=kinds, padded_boxes=padded, size=size)


@lru_cache(maxsize=2)  # with millions of pictures the order takes longer than the example
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    """Return the order of the pictures in an epoch."""
    return np.random.default_rng((seed, 1, epoch)).permutation(count)


def _chosen(
    masks: npt.NDArray[np.bool_], count: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Choose `count` masks, none twice while there are enough, leaving out small ones."""
    # One mask at a time: along an axis, numpy counts by adding, which takes longer.
    areas = np.asarray([np.count_nonzero(mask) for mask in masks])
    usable = np.flatnonzero(areas >= min(SMALLEST, int(areas.max())))
    return rng.choice(usable, count, replace=len(usable) < count)
