"""Predict masks for many images from Python, with reading and inference overlapped."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from glesam_runtime import masks
from glesam_runtime.image import Preprocessed, check_image, preprocess
from glesam_runtime.image_file import pixels_of, read_image
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
    """An image, and its prompt as a mapping with the arguments of `GleSamPredictor.predict`:
    `point_coords`, `point_labels`, `box`, `mask_input`."""


class Prediction(NamedTuple):
    """The masks of one image, as `GleSamPredictor.predict` returns them.

    C is the number of masks per prompt, 1 or 3. With B prompts, if B is not 1, each array has a
    leading axis B.
    """

    masks: NDArray[np.bool_]
    """bool [C, H, W], in pixels of the image."""
    iou_predictions: NDArray[np.float32]
    """float32 [C], the quality that the decoder predicts for each mask, from 0 to 1."""
    low_res_masks: NDArray[np.float32]
    """float32 [C, S/4, S/4], logits for the `mask_input` of a later call."""


def segment_many(
    predictor: GleSamPredictor,
    images: Iterable[Prompted],
    multimask_output: bool = True,
    streams: int = 1,
    in_flight: int | None = None,
) -> Generator[Prediction | GlesamError]:
    """Predict masks for many images; the next images are read while one is encoded.

    Args:
        predictor: the predictor whose graphs are used; its own image stays set.
        images: images with their prompts, taken a few ahead of the results. Arrays are copied when
            they are taken, so a generator may reuse one buffer for all its frames.
        multimask_output: True (the default, as in segment_anything) returns three masks per prompt,
            False one.
        streams: number of images inferred at the same time. Create the predictor with
            `EngineOptions(streams=...)` of the same number.
        in_flight: number of images worked on at the same time; None is one per stream plus one per
            core.

    Yields:
        The prediction of each image, or the error that it failed with, in the order of the images.

    Raises:
        BackendError: the engine cannot be shared between streams.
        InputError: `in_flight` is less than `streams`.
    """
    work = _Predicting(predictor.bundle.manifest, multimask_output)
    return run_overlapped(work, map(_own, images), predictor, streams, in_flight)


def _own(item: Prompted) -> Prompted:
    """Return an image and its prompts as copies, which a thread can read later."""
    source, prompts = item
    if not isinstance(source, str | os.PathLike):
        source = deepcopy(source)
    return source, {name: deepcopy(value) for name, value in prompts.items()}


@dataclass(frozen=True)
class _PromptedImage:
    encoded: Preprocessed
    prompts: PromptBatch
    batched: bool


@dataclass(frozen=True)
class _DecodedImage:
    image: _PromptedImage
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

    def prepare(self, item: Prompted) -> _PromptedImage:
        source, prompts = item
        image = read_image(source) if isinstance(source, str | os.PathLike) else check_image(source)
        encoded = preprocess(image, self.manifest.preprocessing)
        batched, batch = as_batch(encoded.geometry, **prompts)
        return _PromptedImage(encoded, batch, batched)

    def infer(self, predictor: GleSamPredictor, image: _PromptedImage) -> _DecodedImage:
        predictor.set_prepared(image.encoded)
        return _DecodedImage(image, *predictor.decode(image.prompts, self.multimask))

    def finish(self, decoded: _DecodedImage, check: Callable[[], None]) -> Prediction:
        check()
        rules, geometry = self.manifest.postprocessing, decoded.image.encoded.geometry
        made = masks.binarize(decoded.low_res, geometry, rules)
        low_res = masks.for_mask_input(decoded.low_res, rules)
        prediction = Prediction(made.masks, decoded.scores, low_res)
        if decoded.image.batched:
            return prediction
        return Prediction(*(array[0] for array in prediction))
