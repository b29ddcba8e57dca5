"""SamPredictor without torch: an image is encoded and enhanced once, then prompted many times."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime import chain, masks
from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.choose import choose_engine
from glesam_runtime.errors import InputError
from glesam_runtime.image import Geometry, check_image, preprocess
from glesam_runtime.manifest import STAGES, StageName
from glesam_runtime.prompts import PromptBatch, check_prompts, prompt_tensors

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.backends.base import Engine, EngineOptions


class GleSamPredictor:
    """Predict masks with a bundle; the signature and semantics of segment_anything's predictor.

    It owns one image at a time and is not thread-safe: use one predictor a thread.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        backend: str = "auto",
        device: str | None = None,
        enhance: bool = True,
        options: EngineOptions | None = None,
    ) -> None:
        """Verify a bundle and load its graphs.

        Args:
            bundle: a bundle folder or an opened one; None is the built-in nano.
            backend: a name of `backends.BACKENDS`, or "auto", see `choose.choose_engine`.
            device: "cpu", "cuda", "cuda:N"; None is the backend's default.
            enhance: False prompts the encoder's own embeddings, as plain SAM does, and does not
                load the enhancer.
            options: how the engine is to run.

        Raises:
            BundleError: the bundle is incomplete, altered or too new.
            BackendError: the engine is missing or cannot run it.
        """
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        stages: tuple[StageName, ...] = STAGES if enhance else ("encoder", "decoder")
        self.timings: dict[str, float] = {}
        """Seconds each step last took: load, preprocess, encoder, enhancer, decoder, masks."""
        with self._timed("load"):
            choice = choose_engine(self.bundle, backend, device, stages, options)
        self.engine: Engine = choice.engine
        self.engine_reason = choice.reason
        """Why it is this engine; None where `backend` named it."""
        self._enhance = enhance
        self._geometry: Geometry | None = None
        self._features: chain.Features | None = None

    @property
    def is_image_set(self) -> bool:
        """Whether `set_image` has been called since the start or the last reset."""
        return self._features is not None

    @property
    def original_size(self) -> tuple[int, int] | None:
        """(H, W) of the image, in pixels."""
        return self._geometry.original if self._geometry else None

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(h, w) the image has inside the graph, in pixels."""
        return self._geometry.resized if self._geometry else None

    @property
    def geometry(self) -> Geometry:
        """How the image lies in the graph's square.

        Raises:
            InputError: no image is set.
        """
        if self._geometry is None:
            raise InputError("no image is set; call set_image first")
        return self._geometry

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode and enhance an image.

        Args:
            image: uint8 [H, W, 3].
            image_format: order of its channels, "RGB" or "BGR".

        Raises:
            InputError: not such an image; the one set before stays.
        """
        if image_format not in ("RGB", "BGR"):
            raise InputError(f'image_format {image_format!r}: must be "RGB" or "BGR"')
        image = check_image(image)
        manifest = self.bundle.manifest
        with self._timed("preprocess"):
            rgb = image if image_format == "RGB" else np.ascontiguousarray(image[..., ::-1])
            prepared = preprocess(rgb, manifest.preprocessing)
        with self._timed("encoder"):
            features = chain.encode(self.engine, manifest, prepared.tensor)
        if self._enhance:
            with self._timed("enhancer"):
                features = chain.enhance(self.engine, manifest, features)
        self._geometry, self._features = prepared.geometry, features

    def reset_image(self) -> None:
        """Forget the image."""
        self._geometry, self._features = None, None

    def get_image_embedding(self) -> NDArray[np.float32]:
        """What the decoder sees, [1, 256, S/16, S/16]: enhanced unless `enhance` is False.

        Raises:
            InputError: no image is set.
        """
        return self.engine.to_host(self._seen()[chain.EMBEDDINGS])

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[np.bool_] | NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Predict masks for one prompt, or for B prompts in one decoder call.

        With a leading axis B on every prompt given, the results have it too.

        Args:
            point_coords: [N, 2] or [B, N, 2], (x, y) in pixels of the image.
            point_labels: [N] or [B, N], 1 for the object, 0 for the background.
            box: [4] or [B, 4], x0, y0, x1, y1 in pixels of the image.
            mask_input: [1, S/4, S/4] or [B, 1, S/4, S/4], low_res_masks of an earlier call.
            multimask_output: three masks for an ambiguous prompt, or one.
            return_logits: masks as float32 logits instead of bool.

        Returns:
            masks [C, H, W], iou_predictions [C] and low_res_masks [C, S/4, S/4], C being 1 or 3.

        Raises:
            InputError: no image is set, or a prompt cannot be used.
        """
        batched, prompts = _as_batch(self.geometry, point_coords, point_labels, box, mask_input)
        low_res, iou = self.decode(prompts, multimask_output)
        rules = self.bundle.manifest.postprocessing
        with self._timed("masks"):
            if return_logits:
                full: NDArray[np.bool_] | NDArray[np.float32] = masks.upscale(
                    low_res, self.geometry, rules
                )
            else:
                full = self.binarize(low_res).masks
            low_res = masks.for_mask_input(low_res, rules)
        return (full, iou, low_res) if batched else (full[0], iou[0], low_res[0])

    def decode(
        self, prompts: PromptBatch, multimask_output: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and predicted IoU of B checked prompts: [B, C, S/4, S/4] and [B, C]."""
        manifest = self.bundle.manifest
        tensors = prompt_tensors(prompts, self.geometry, manifest.coordinates)
        with self._timed("decoder"):
            low_res, iou = chain.decode(self.engine, self._seen(), tensors)
        return masks.choose(low_res, iou, multimask_output, manifest.postprocessing)

    def binarize(
        self, low_res: NDArray[np.float32], stability_offset: float | None = None
    ) -> masks.Masks:
        """Masks at the image's size with their stability: [..., S/4, S/4] -> [..., H, W].

        Args:
            low_res: logits of `decode`.
            stability_offset: in logits; None is the manifest's.
        """
        rules = self.bundle.manifest.postprocessing
        return masks.binarize(low_res, self.geometry, rules, stability_offset)

    def _seen(self) -> chain.Features:
        if self._features is None:
            raise InputError("no image is set; call set_image first")
        return self._features

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[step] = time.perf_counter() - start


def _as_batch(
    geometry: Geometry,
    points: ArrayLike | None,
    labels: ArrayLike | None,
    box: ArrayLike | None,
    mask: ArrayLike | None,
) -> tuple[bool, PromptBatch]:
    """Tell one prompt from B by the axes given, add the missing axis, and check."""
    single_axes = {"points": (points, 2), "labels": (labels, 1), "box": (box, 1), "mask": (mask, 3)}
    given = {
        name: (_rank(value, name), axes)
        for name, (value, axes) in single_axes.items()
        if value is not None
    }
    batched = any(rank == axes + 1 for rank, axes in given.values())
    for name, (rank, axes) in given.items():
        if rank != axes + batched:
            shape = f"{axes} axes, or {axes + 1} for a batch"
            raise InputError(f"{name}: {rank} axes, but {shape} is needed on every prompt alike")

    def lift(value: ArrayLike | None) -> ArrayLike | None:
        return value if value is None or batched else np.asarray(value)[None]

    return batched, check_prompts(geometry, lift(points), lift(labels), lift(box), lift(mask))


def _rank(value: ArrayLike, name: str) -> int:
    """Number of axes."""
    try:
        return np.asarray(value).ndim
    except ValueError as error:  # rows of different lengths
        raise InputError(f"{name}: not an array of numbers ({error})") from error
