"""Predictions for many images, for a program: what glesam-run overlaps, without its files."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from glesam_runtime import masks
from glesam_runtime.image import Preprocessed, check_image, pixels_of, preprocess, read_image
from glesam_runtime.overlap import run_overlapped
from glesam_runtime.prompts import PromptBatch, as_batch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.errors import GlesamError
    from glesam_runtime.manifest import Manifest
    from glesam_runtime.predictor import GleSamPredictor

    Source: TypeAlias = str | os.PathLike[str] | NDArray[np.uint8]
    """An image file, or its pixels: uint8 [H, W, 3], RGB."""
    Prompted: TypeAlias = tuple[Source, Mapping[str, ArrayLike]]
    """An image, and `point_coords`, `point_labels`, `box` or `mask_input` as `predict` has them."""


class Prediction(NamedTuple):
    """What `GleSamPredictor.predict` returns; with B prompts each has a leading axis B."""

    masks: NDArray[np.bool_]
    """[C, H, W]."""
    iou_predictions: NDArray[np.float32]
    """[C]."""
    low_res_masks: NDArray[np.float32]
    """[C, S/4, S/4]."""


def segment_many(
    predictor: GleSamPredictor,
    images: Iterable[Prompted],
    multimask_output: bool = True,
    streams: int = 1,
    in_flight: int | None = None,
) -> Generator[Prediction | GlesamError]:
    """Predict masks for many images; the next are read while one is encoded.

    Args:
        predictor: its graphs are used; the image it has stays set.
        images: taken as they are needed, a few ahead of what was yielded.
        multimask_output: three masks a prompt, or one.
        streams: images that are inferred at a time; give `EngineOptions(streams=...)` as many.
        in_flight: images worked on at a time; None is one a stream and one a core.

    Yields:
        For each image, in order, its prediction or the error that says why there is none.

    Raises:
        BackendError: the engine runs one stream only.
        InputError: fewer in flight than there are streams.
    """
    work = _Predicting(predictor.bundle.manifest, multimask_output)
    return run_overlapped(work, images, predictor, streams, in_flight)


@dataclass(frozen=True)
class _Asked:
    encoded: Preprocessed
    prompts: PromptBatch
    batched: bool


@dataclass(frozen=True)
class _Answered:
    asked: _Asked
    low_res: NDArray[np.float32]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class _Predicting:
    manifest: Manifest
    multimask: bool

    def pixels(self, item: Prompted) -> int:
        source = item[0]
        if isinstance(source, str | os.PathLike):
            return pixels_of(source)
        return 0  # in memory already

    def prepare(self, item: Prompted) -> _Asked:
        source, prompts = item
        image = read_image(source) if isinstance(source, str | os.PathLike) else check_image(source)
        encoded = preprocess(image, self.manifest.preprocessing)
        batched, batch = as_batch(encoded.geometry, **prompts)
        return _Asked(encoded, batch, batched)

    def infer(self, predictor: GleSamPredictor, asked: _Asked) -> _Answered:
        predictor.set_prepared(asked.encoded)
        return _Answered(asked, *predictor.decode(asked.prompts, self.multimask))

    def finish(self, answered: _Answered, check: Callable[[], None]) -> Prediction:
        check()
        rules, geometry = self.manifest.postprocessing, answered.asked.encoded.geometry
        made = masks.binarize(answered.low_res, geometry, rules)
        low_res = masks.for_mask_input(answered.low_res, rules)
        all_of_them = Prediction(made.masks, answered.scores, low_res)
        if answered.asked.batched:
            return all_of_them
        return Prediction(*(array[0] for array in all_of_them))
