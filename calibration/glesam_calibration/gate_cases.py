"""Measure what the enhancer gains on pictures in every condition, for a gate to learn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glesam_evaluation import metrics
from glesam_evaluation.conditions import show_with_masks
from glesam_evaluation.datasets import Dataset, open_dataset
from glesam_evaluation.datasets.sample import Sample
from glesam_evaluation.datasets.stand_ins import ImageSource, find_sources
from glesam_evaluation.degrade import WARPS
from glesam_evaluation.prompting import Prompts, draw_prompts
from glesam_evaluation.protocol import EvaluationPlan, chosen_masks
from glesam_evaluation.segmenters import Stages
from glesam_runtime import masks
from glesam_runtime.enhancement_gate import GateTarget
from glesam_runtime.enhancing import channel_moments
from glesam_runtime.errors import InputError
from glesam_runtime.everything.grids import even_grid
from glesam_runtime.image import Geometry, preprocess
from glesam_runtime.prompts import check_prompts, prompt_tensors

PROMPT, MAX_MASKS = "3-point", 5
GRID_POINTS = 4
"""Points along each side of the grid that prompts a picture without masks."""

Masks = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Picture:
    """A clear picture, uint8 RGB [H,W,3], and the masks of its objects, bool [K,H,W], if known."""

    name: str
    image: NDArray[np.uint8]
    masks: Masks | None


@dataclass(frozen=True)
class Pictures:
    """Clear pictures, read one at a time."""

    places: Dataset | Sequence[ImageSource]
    count: int

    @property
    def have_masks(self) -> bool:
        """Return whether the masks of the objects are known."""
        return not isinstance(self.places, list)

    def each(self) -> Iterator[Picture]:
        """Read the pictures in order.

        Raises:
            InputError: one cannot be read.
        """
        for index in range(self.count):
            one = self.places[index]
            if isinstance(one, Sample):
                yield Picture(one.name, one.image, one.masks)
            else:
                yield Picture(one.name, one.read(), None)


def open_pictures(data: str, limit: int | None, *, need_masks: bool | None) -> Pictures:
    """Open a dataset with masks, or a place with pictures alone.

    Args:
        data: a dataset as `open_dataset` takes it, or an image file, a folder or a list of images.
        limit: maximum number of pictures; None is all.
        need_masks: True needs a dataset, False takes pictures alone, None prefers a dataset.

    Raises:
        InputError: there is no such place, or it has no pictures.
    """
    places: Dataset | Sequence[ImageSource]
    if need_masks is False and Path(data).exists() and Path(data).suffix.lower() != ".json":
        places = find_sources([Path(data)])
    else:
        try:
            places = open_dataset(data)
        except InputError:
            if need_masks or not Path(data).is_dir():
                raise
            places = find_sources([Path(data)])
    return Pictures(places, len(places) if limit is None else min(limit, len(places)))


@dataclass(frozen=True, eq=False)
class GateCases:
    """N cases: a picture in a condition, its features, and what the enhancer gains on it."""

    features: NDArray[np.float64]
    """[N, 512], those of `enhancing.channel_moments`."""
    gains: NDArray[np.float64]
    """[N], in the unit of the target; greater is better."""
    scores: NDArray[np.float64]
    """[N, 2], what the gain is the difference of: without and with the enhancer."""
    pictures: NDArray[np.int64]
    """[N], the number of the picture."""
    kinds: NDArray[np.str_]
    """[N], the condition."""

    def some(self, chosen: NDArray[np.bool_]) -> GateCases:
        """Return the chosen cases; `chosen` is [N]."""
        return GateCases(
            self.features[chosen],
            self.gains[chosen],
            self.scores[chosen],
            self.pictures[chosen],
            self.kinds[chosen],
        )


def measure_cases(
    stages: Stages,
    pictures: Pictures,
    kinds: Sequence[str],
    targets: Sequence[GateTarget],
    seed: int,
    progress: Callable[[int, int], object],
) -> dict[GateTarget, GateCases]:
    """Run the encoder and the enhancer on every picture in every condition.

    A condition that moves what a picture shows has no gain by `latent` and by `agreement`, because
    those compare it with the clear picture.

    Args:
        stages: the model.
        pictures: the clear pictures.
        kinds: the conditions.
        targets: what to measure.
        seed: the seed of degradations and prompts.
        progress: called with the number of finished pictures and their total.

    Raises:
        InputError: a picture cannot be used, or the target `iou` needs masks that are not there.
    """
    if "iou" in targets and not pictures.have_masks:
        raise InputError("the target iou needs pictures with masks; choose agreement or latent")
    found: dict[GateTarget, list[tuple[NDArray[np.float64], float, float, int, str]]] = {
        target: [] for target in targets
    }
    for number, picture in enumerate(pictures.each()):
        measured = _Measured(stages, picture, seed, decode=set(targets) != {"latent"})
        for kind in kinds:
            features, scores = measured.in_condition(kind)
            for target in targets:
                if target in scores:
                    found[target].append((features, *scores[target], number, kind))
        progress(number + 1, pictures.count)
    return {target: _stacked(rows, target) for target, rows in found.items()}


def _stacked(
    rows: list[tuple[NDArray[np.float64], float, float, int, str]], target: GateTarget
) -> GateCases:
    if not rows:
        raise InputError(f"the target {target} has no case: only warps were asked for")
    features, without, enhanced, numbers, kinds = zip(*rows, strict=True)
    scores = np.stack([without, enhanced], axis=1)
    gains = scores[:, 1] - scores[:, 0]
    return GateCases(np.stack(features), gains, scores, np.array(numbers), np.array(kinds))


class _Measured:
    """A picture, and what the clear picture gives."""

    def __init__(self, stages: Stages, picture: Picture, seed: int, *, decode: bool) -> None:
        self._stages, self._picture, self._seed, self._decode = stages, picture, seed, decode
        self._plan = EvaluationPlan(prompts=(PROMPT,), seed=seed, max_masks=MAX_MASKS)
        height, width = picture.image.shape[:2]
        self._truth: Masks = np.zeros((0, height, width), np.bool_)
        self._numbers: list[int] = []
        if picture.masks is not None:
            sample = Sample(picture.name, picture.image, picture.masks)
            self._numbers = chosen_masks(sample, self._plan)
            self._truth = picture.masks[self._numbers]
        encoded, geometry = self._encode(picture.image)
        self._prompts = self._draw(self._truth, self._numbers, geometry)
        self._clear = stages.latent(encoded).astype(np.float64)
        self._clear_masks = self._segment(encoded, geometry, self._prompts) if decode else None

    def in_condition(
        self, kind: str
    ) -> tuple[NDArray[np.float64], dict[GateTarget, tuple[float, float]]]:
        """Return the features of the picture in a condition, and its scores without and with."""
        picture = self._picture
        moves = kind in WARPS
        if moves and picture.masks is None:
            return np.zeros(0), {}
        shown, truth = show_with_masks(picture.image, self._truth, kind, self._seed, picture.name)
        prompts = self._prompts
        encoded, geometry = self._encode(shown)
        if moves:
            there = np.asarray(truth.any(axis=(1, 2)))
            if not there.any():
                return np.zeros(0), {}
            numbers = [n for n, kept in zip(self._numbers, there, strict=True) if kept]
            truth = truth[there]
            prompts = self._draw(truth, numbers, geometry)
        enhanced = self._stages.enhance(encoded)
        z_l, z_h = self._stages.latent(encoded), self._stages.latent(enhanced)
        scores: dict[GateTarget, tuple[float, float]] = {}
        if not moves:
            size = float(np.linalg.norm(self._clear))
            distances = [float(np.linalg.norm(z - self._clear)) / size for z in (z_l, z_h)]
            scores["latent"] = -distances[0], -distances[1]
        if self._decode:
            both = [self._segment(each, geometry, prompts) for each in (encoded, enhanced)]
            if self._clear_masks is not None and not moves:
                agreed = [float(metrics.iou(each, self._clear_masks).mean()) for each in both]
                scores["agreement"] = agreed[0], agreed[1]
            if picture.masks is not None:
                found = [float(metrics.iou(each, truth).mean()) for each in both]
                scores["iou"] = found[0], found[1]
        return channel_moments(z_l[None], geometry), scores

    def _encode(self, image: NDArray[np.uint8]) -> tuple[object, Geometry]:
        prepared = preprocess(image, self._stages.preprocessing)
        return self._stages.encode(prepared.tensor), prepared.geometry

    def _draw(self, truth: Masks, numbers: Sequence[int], geometry: Geometry) -> Prompts:
        if numbers:
            return draw_prompts(truth, numbers, PROMPT, self._seed, self._picture.name)
        height, width = geometry.original
        points = even_grid(GRID_POINTS) * [width, height]
        return Prompts(points[:, None], np.ones((len(points), 1), np.float32), None)

    def _segment(self, embeddings: object, geometry: Geometry, prompts: Prompts) -> Masks:
        checked = check_prompts(geometry, prompts.points, prompts.labels, prompts.boxes)
        tensors = prompt_tensors(checked, geometry, self._stages.coordinates)
        rules = self._stages.postprocessing
        low_res, _ = masks.choose(
            *self._stages.decode(embeddings, tensors), multimask=False, rules=rules
        )
        return masks.binarize(low_res[:, 0], geometry, rules).masks
