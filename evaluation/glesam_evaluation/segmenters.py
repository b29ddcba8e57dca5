"""Wrap a model as two segmenters, with and without its enhancer, that share one encoder run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from glesam_evaluation.protocol import Segmenter
from glesam_runtime import chain, masks
from glesam_runtime.errors import InputError
from glesam_runtime.image import Geometry, preprocess
from glesam_runtime.prompts import check_prompts, prompt_tensors

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.manifest import Coordinates, Postprocessing, Preprocessing

WITHOUT, WITH = "without enhancer", "with enhancer"


class Stages(Protocol):
    """The three stages of a model. The type of its embeddings is its own."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the rules for preparing an image."""

    @property
    def postprocessing(self) -> Postprocessing:
        """Return the rules that turn logits into masks."""

    @property
    def coordinates(self) -> Coordinates:
        """Return the rules for prompts."""

    def encode(self, image: npt.NDArray[np.float32]) -> Any:
        """Encode a normalised and padded image, float32 [1,3,S,S], into z_L and other features."""

    def enhance(self, embeddings: Any) -> Any:
        """Turn z_L into z_H."""

    def latent(self, embeddings: Any) -> npt.NDArray[np.float32]:
        """Return z_L or z_H as an array, [256,S/16,S/16]."""

    def decode(
        self, embeddings: Any, prompts: Mapping[str, npt.NDArray[np.float32]]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return logits [B,4,S/4,S/4] and predicted IoU [B,4] for `prompts.prompt_tensors`."""


class BundleStages:
    """The stages of a bundle, run by an engine."""

    def __init__(
        self,
        bundle: Bundle,
        backend: str = "auto",
        device: str | None = None,
        options: EngineOptions | None = None,
    ) -> None:
        """Load all three graphs.

        Raises:
            BackendError: the engine is missing or cannot run them.
        """
        from glesam_runtime.engine_selection import select_engine

        self._engine: Engine = select_engine(bundle, backend, device, options=options).engine
        self._manifest = bundle.manifest

    @property
    def preprocessing(self) -> Preprocessing:
        """Return the rules of the manifest."""
        return self._manifest.preprocessing

    @property
    def postprocessing(self) -> Postprocessing:
        """Return the rules of the manifest."""
        return self._manifest.postprocessing

    @property
    def coordinates(self) -> Coordinates:
        """Return the rules of the manifest."""
        return self._manifest.coordinates

    def encode(self, image: npt.NDArray[np.float32]) -> Any:
        """Encode an image, float32 [1,3,S,S]; z_L stays on the device of the engine."""
        return chain.encode(self._engine, self._manifest, image)

    def enhance(self, embeddings: Any) -> Any:
        """Turn z_L into z_H; both stay on the device of the engine."""
        return chain.enhance(self._engine, self._manifest, embeddings)

    def latent(self, embeddings: Any) -> npt.NDArray[np.float32]:
        """Copy z_L or z_H from the engine, [256,S/16,S/16]."""
        host: npt.NDArray[np.float32] = self._engine.to_host(embeddings[chain.EMBEDDINGS])[0]
        return host

    def decode(
        self, embeddings: Any, prompts: Mapping[str, npt.NDArray[np.float32]]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return logits [B,4,S/4,S/4] and predicted IoU [B,4]."""
        return chain.decode(self._engine, embeddings, dict(prompts))


class SharedEncoder:
    """A cache of the last image's z_L, so that two segmenters of one model encode it once."""

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._image: npt.NDArray[np.uint8] | None = None
        self._encoded: tuple[Any, Geometry] | None = None

    def encode(self, image: npt.NDArray[np.uint8]) -> tuple[Any, Geometry]:
        """Return z_L and the geometry of an image; the same array again is not encoded again."""
        if self._encoded is None or image is not self._image:
            prepared = preprocess(image, self._stages.preprocessing)
            self._encoded = self._stages.encode(prepared.tensor), prepared.geometry
            self._image = image
        return self._encoded


class StagedSegmenter:
    """A segmenter of three stages: it does what GleSamPredictor does, for any implementation."""

    def __init__(
        self, stages: Stages, *, enhance: bool, encoder: SharedEncoder | None = None
    ) -> None:
        """Wrap a model.

        Args:
            stages: the model.
            enhance: False skips the enhancer and decodes z_L, as plain SAM does.
            encoder: a cache that another segmenter of the same model shares.
        """
        self._stages, self._enhance = stages, enhance
        self._encoder = encoder or SharedEncoder(stages)
        self._seen: tuple[Any, Geometry] | None = None

    def set_image(self, image: npt.NDArray[np.uint8]) -> None:
        """Encode and enhance an image, uint8 RGB [H,W,3]; do not change the array afterwards.

        Raises:
            InputError: the image has another shape or dtype.
        """
        embeddings, geometry = self._encoder.encode(image)
        if self._enhance:
            embeddings = self._stages.enhance(embeddings)
        self._seen = embeddings, geometry

    def segment(
        self,
        points: npt.NDArray[np.float64] | None,
        labels: npt.NDArray[np.float32] | None,
        boxes: npt.NDArray[np.float64] | None,
    ) -> npt.NDArray[np.bool_]:
        """Return one mask per prompt, bool [B,H,W]: SAM's single mask.

        Raises:
            InputError: no image is set, or a prompt is not valid.
        """
        if self._seen is None:
            raise InputError("no image is set; call set_image first")
        embeddings, geometry = self._seen
        prompts = check_prompts(geometry, points, labels, boxes)
        tensors = prompt_tensors(prompts, geometry, self._stages.coordinates)
        rules = self._stages.postprocessing
        decoded = self._stages.decode(embeddings, tensors)
        low_res, _ = masks.choose(*decoded, multimask=False, rules=rules)
        return masks.binarize(low_res[:, 0], geometry, rules).masks


def with_and_without(stages: Stages) -> dict[str, Segmenter]:
    """Return two segmenters of a model: without the enhancer (plain SAM), and with it."""
    encoder = SharedEncoder(stages)
    return {
        WITHOUT: StagedSegmenter(stages, enhance=False, encoder=encoder),
        WITH: StagedSegmenter(stages, enhance=True, encoder=encoder),
    }


def bundle_segmenters(
    bundle: Bundle, backend: str = "auto", device: str | None = None
) -> dict[str, Segmenter]:
    """Return two segmenters of a bundle: without its enhancer, and with it.

    Raises:
        BackendError: the engine is missing or cannot run the bundle.
    """
    return with_and_without(BundleStages(bundle, backend, device))
