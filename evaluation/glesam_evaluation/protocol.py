"""Evaluate segmenters: each one gets the same images and the same prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from glesam_evaluation import metrics
from glesam_evaluation.conditions import DEFAULT, show_with_masks
from glesam_evaluation.datasets import Dataset, Sample
from glesam_evaluation.degrade import recipe_settings
from glesam_evaluation.prompting import Prompts, draw_prompts
from glesam_evaluation.seeds import derive
from glesam_runtime.errors import InputError

DEFAULT_PROMPTS = ("3-point",)
MAX_MASKS = 10
_AT_ONCE = 16
"""Prompts per decoder call: 16 prompts of four masks each are 64 MB of logits at full size."""


class Segmenter(Protocol):
    """Anything that can be evaluated: it takes an image, then prompts about it."""

    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """Set the image, uint8 RGB [H,W,3], for the following calls of `segment`."""

    def segment(
        self,
        points: npt.NDArray[np.float64] | None,
        labels: npt.NDArray[np.float32] | None,
        boxes: npt.NDArray[np.float64] | None,
    ) -> npt.NDArray[np.bool_]:
        """Return one mask per prompt, bool [B,H,W].

        Use SAM's single mask (multimask_output=False) for every prompt, as the paper does. Choosing
        the best of three masks would need the ground truth, or another network.

        Args:
            points: [B,N,2], (x, y) in pixels of the image, or None.
            labels: [B,N], 1 for the object; None without points.
            boxes: [B,4], x0, y0, x1, y1 in pixels of the image, or None.
        """


@dataclass(frozen=True)
class EvaluationPlan:
    """The plan of an evaluation. The defaults are those of the paper."""

    prompts: tuple[str, ...] = DEFAULT_PROMPTS
    conditions: tuple[str, ...] = DEFAULT
    seed: int = 0
    max_masks: int = MAX_MASKS
    """Maximum number of objects per image; the seed decides which."""
    limit: int | None = None
    """Maximum number of images, counted from the first; None is all."""
    recipe: str = "paper"
    """Recipe of LQ-1 to LQ-3, a key of `degrade.RECIPES`."""
    empty: float = 1.0
    """IoU, Dice and boundary IoU of an empty mask against an empty truth. The released code of
    GleSAM counts 0 for IoU and Dice, and has no number for boundary IoU."""

    def __post_init__(self) -> None:
        recipe_settings(self.recipe)
        if self.empty not in (0, 1):
            raise InputError(f"empty {self.empty!r}: must be 0 or 1")
        for name, value in (("max_masks", self.max_masks), ("limit", self.limit)):
            if value is not None and value < 1:
                raise InputError(f"{name} {value}: must be at least 1")


@dataclass(frozen=True)
class Row:
    """One predicted mask and its metrics."""

    image: str
    mask: int
    """Number of the mask in its image."""
    condition: str
    prompt: str
    segmenter: str
    iou: float
    dice: float
    pixel_accuracy: float
    boundary_iou: float | None = None
    """None in reports of versions that did not measure it, like `quality`."""
    quality: float | None = None
    """`metrics.sharpness` of the image in the condition."""


def evaluate(
    segmenters: Mapping[str, Segmenter],
    dataset: Dataset,
    plan: EvaluationPlan = EvaluationPlan(),
    progress: Callable[[int, int], object] | None = None,
) -> list[Row]:
    """Run every segmenter on every sample, in every condition, with every kind of prompt.

    A row depends only on its sample, condition, kind of prompt and the seed. It does not depend on
    what else is evaluated, or in which order.

    Args:
        segmenters: segmenters by name; the rows use these names.
        dataset: images with ground-truth masks.
        plan: prompts, conditions, seed and limits.
        progress: called after each image with the number of finished images and their total.

    Raises:
        InputError: a sample cannot be read, or there are no segmenters, prompts or conditions.
    """
    if not segmenters or not plan.prompts or not plan.conditions:
        raise InputError("nothing to evaluate: give at least one segmenter, prompt and condition")
    total = len(dataset) if plan.limit is None else min(plan.limit, len(dataset))
    rows: list[Row] = []
    for index in range(total):
        sample = dataset[index]
        try:
            rows += _evaluate_sample(segmenters, sample, plan)
        except InputError as error:
            raise InputError(f"{sample.name}: {error}") from error
        if progress is not None:
            progress(index + 1, total)
    return rows


def _evaluate_sample(
    segmenters: Mapping[str, Segmenter], sample: Sample, plan: EvaluationPlan
) -> Iterator[Row]:
    numbers = chosen_masks(sample, plan)
    still = sample.masks[numbers]

    def drawn(truth: npt.NDArray[np.bool_], left: list[int]) -> dict[str, Prompts]:
        return {
            kind: draw_prompts(truth, left, kind, plan.seed, sample.name) for kind in plan.prompts
        }

    usual = drawn(still, numbers)
    for condition in plan.conditions:
        shown, truth = show_with_masks(
            sample.image, still, condition, plan.seed, sample.name, recipe_settings(plan.recipe)
        )
        left, prompts = numbers, usual
        if truth is not still:  # warped: an object at the border may have left the image
            there = [bool(mask.any()) for mask in truth]
            truth = truth[there]
            left = [number for number, is_there in zip(numbers, there, strict=True) if is_there]
            prompts = drawn(truth, left) if left else {}
        quality = metrics.sharpness(shown)
        for segmenter_name, segmenter in segmenters.items():
            segmenter.set_image(shown)
            for kind, some in prompts.items():
                figures = _figures(segmenter, some, truth, plan.empty)
                for number, found in zip(left, figures.tolist(), strict=True):
                    place = (sample.name, number, condition, kind, segmenter_name)
                    iou, dice, accuracy, boundary = found
                    yield Row(*place, iou, dice, accuracy, boundary, quality)


def chosen_masks(sample: Sample, plan: EvaluationPlan) -> list[int]:
    """Return the numbers of those masks of a sample that are evaluated."""
    count = len(sample.masks)
    if count <= plan.max_masks:
        return list(range(count))
    rng = np.random.default_rng(derive(plan.seed, sample.name, "masks"))
    return sorted(int(number) for number in rng.permutation(count)[: plan.max_masks])


def _figures(
    segmenter: Segmenter, prompts: Prompts, truth: npt.NDArray[np.bool_], empty: float
) -> npt.NDArray[np.float64]:
    """Return IoU, Dice, pixel accuracy and boundary IoU of the mask of each prompt: [B,4]."""
    figures = []
    for start in range(0, len(truth), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        some = prompts.part(part)
        predicted = segmenter.segment(some.points, some.labels, some.boxes)
        found = (
            metrics.iou(predicted, truth[part], empty=empty),
            metrics.dice(predicted, truth[part], empty=empty),
            metrics.pixel_accuracy(predicted, truth[part]),
            metrics.boundary_iou(predicted, truth[part], empty=empty),
        )
        figures.append(np.stack(found, axis=1))
    return np.concatenate(figures)
