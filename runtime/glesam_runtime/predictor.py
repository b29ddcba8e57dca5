"""Predict masks as segment_anything's SamPredictor does, without torch.

An image is encoded and enhanced once and can then be prompted many times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime import chain, masks
from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.engine_selection import select_engine
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.image import Geometry, Preprocessed, check_image, preprocess
from glesam_runtime.manifest import STAGES, Manifest, StageName
from glesam_runtime.prompts import PromptBatch, as_batch, prompt_tensors, split

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.backends.base import Engine
    from glesam_runtime.engine_options import EngineOptions

_PROMPT_BATCH_CPU, _PROMPT_BATCH = 8, 64
"""Default maximum number of prompts per decoder call. On a CPU larger batches are no faster, and at
full size each prompt takes about 65 MB in float32 (docs/performance.md). The default on a GPU, 64,
is that of segment_anything."""


class GleSamPredictor:
    """A predictor of masks with the signatures and semantics of segment_anything's SamPredictor.

    A predictor holds one image at a time and is not thread-safe: give each other thread a `share`.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        *,
        backend: str = "auto",
        device: str | None = None,
        enhance: bool = True,
        options: EngineOptions | None = None,
        prompt_batch: int | None = None,
    ) -> None:
        """Verify a bundle and load its graphs.

        Args:
            bundle: a bundle folder or an opened bundle; None is the built-in nano.
            backend: "onnxruntime", "openvino", "tensorrt" or "auto", which selects the
                fastest installed backend that stays within the bundle's accuracy limits.
            device: "cpu", "cuda" or "cuda:N"; None is the backend's default.
            enhance: False runs plain SAM: the enhancer is neither loaded nor run.
            options: how the engine is to run.
            prompt_batch: maximum number of prompts per decoder call; None is 8 on a CPU and 64 on
                other devices.

        Raises:
            BundleError: the bundle is incomplete, altered or too new.
            BackendError: the backend is not installed or cannot run the bundle.
            InputError: `prompt_batch` is less than 1.
        """
        if prompt_batch is not None and prompt_batch < 1:
            raise InputError(f"prompt_batch {prompt_batch}: at least 1 is needed")
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        stages: tuple[StageName, ...] = STAGES if enhance else ("encoder", "decoder")
        self.timings: dict[str, float] = {}
        """Latest seconds of each step: load, preprocess, encoder, enhancer, decoder, masks."""
        with self._timed("load"):
            selected = select_engine(self.bundle, backend, device, stages, options)
        self.engine: Engine = selected.engine
        self.engine_reason = selected.reason
        """Why "auto" selected this engine; None if `backend` named it."""
        self._enhance = enhance
        self._prompt_batch = _max_prompts(self.bundle.manifest, self.engine.device, prompt_batch)
        self._geometry: Geometry | None = None
        self._features: chain.Features | None = None

    @property
    def is_image_set(self) -> bool:
        """Return whether an image is set."""
        return self._features is not None

    @property
    def original_size(self) -> tuple[int, int] | None:
        """Return (H, W) of the image in pixels, or None if no image is set."""
        return self._geometry.original if self._geometry else None

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Return (h, w) of the resized image in pixels, or None if no image is set."""
        return self._geometry.resized if self._geometry else None

    @property
    def geometry(self) -> Geometry:
        """Return the sizes of the image before and after resizing.

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
            InputError: the array is not such an image; the previous image stays set.
        """
        if image_format not in ("RGB", "BGR"):
            raise InputError(f'image_format {image_format!r}: must be "RGB" or "BGR"')
        image = check_image(image)
        with self._timed("preprocess"):
            rgb = image if image_format == "RGB" else np.ascontiguousarray(image[..., ::-1])
            prepared = preprocess(rgb, self.bundle.manifest.preprocessing)
        self.set_prepared(prepared)

    def set_prepared(self, prepared: Preprocessed) -> None:
        """Encode and enhance an image that `image.preprocess` prepared in any thread."""
        manifest = self.bundle.manifest
        with self._timed("encoder"):
            features = chain.encode(self.engine, manifest, prepared.tensor)
        if self._enhance:
            with self._timed("enhancer"):
                features = chain.enhance(self.engine, manifest, features)
        self._geometry, self._features = prepared.geometry, features

    def reset_image(self) -> None:
        """Forget the image."""
        self._geometry, self._features = None, None

    def share(self) -> GleSamPredictor:
        """Return a predictor for another thread. It uses the same loaded graphs and has no image.

        Raises:
            BackendError: the engine cannot be shared.
        """
        return self.with_engine(self.engine.share())

    def with_engine(self, engine: Engine) -> GleSamPredictor:
        """Return a copy of this predictor that runs on another engine and has no image."""
        other = copy(self)
        other.engine, other.timings = engine, {}
        other.reset_image()
        return other

    def get_image_embedding(self) -> NDArray[np.float32]:
        """Return the image's embeddings, float32 [1, 256, S/16, S/16], enhanced if `enhance` is on.

        Raises:
            InputError: no image is set.
        """
        return self.engine.to_host(self._image_features()[chain.EMBEDDINGS])

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[NDArray[np.bool_] | NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Predict masks for one prompt, or for B prompts at once.

        If the prompts have a leading axis B, the results have it too.

        Args:
            point_coords: [N, 2] or [B, N, 2], (x, y) in pixels of the image.
            point_labels: [N] or [B, N], 1 for the object, 0 for the background.
            box: [4] or [B, 4], x0, y0, x1, y1 in pixels of the image.
            mask_input: [1, S/4, S/4] or [B, 1, S/4, S/4], low_res_masks of an earlier call.
            multimask_output: True (the default, as in segment_anything) returns three masks per
                prompt, False one. glesam-run and the C++ API return one by default.
            return_logits: True returns float32 logits instead of bool masks.

        Returns:
            masks [C, H, W], iou_predictions [C] and low_res_masks [C, S/4, S/4]; C is 3 with
            `multimask_output`, else 1.

        Raises:
            InputError: no image is set, or a prompt cannot be used.
        """
        batched, prompts = as_batch(self.geometry, point_coords, point_labels, box, mask_input)
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
        """Return logits [B, C, S/4, S/4] and predicted IoU [B, C] of B checked prompts.

        Raises:
            InputError: no image is set.
            BackendError: the engine failed, or the results are NaN.
        """
        manifest = self.bundle.manifest
        parts = []
        with self._timed("decoder"):
            for part in split(prompts, self._prompt_batch):
                tensors = prompt_tensors(part, self.geometry, manifest.coordinates)
                low_res, iou = chain.decode(self.engine, self._image_features(), tensors)
                if np.isnan(low_res).any() or not np.isfinite(iou).all():
                    raise BackendError(
                        f"decoder on {self.engine.name}: returned NaN or an infinite IoU; test the "
                        "bundle with --selftest, or use another backend or precision"
                    )
                parts.append(masks.choose(low_res, iou, multimask_output, manifest.postprocessing))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([low_res for low_res, _ in parts]), np.concatenate(
            [iou for _, iou in parts]
        )

    def binarize(
        self, low_res: NDArray[np.float32], stability_offset: float | None = None
    ) -> masks.Masks:
        """Compute masks and stability at the image's size: [..., S/4, S/4] -> [..., H, W].

        Args:
            low_res: logits from `decode`.
            stability_offset: offset of the stability score in logits; None is the manifest's.

        Raises:
            InputError: no image is set.
        """
        rules = self.bundle.manifest.postprocessing
        return masks.binarize(low_res, self.geometry, rules, stability_offset)

    def _image_features(self) -> chain.Features:
        if self._features is None:
            raise InputError("no image is set; call set_image first")
        return self._features

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[step] = time.perf_counter() - start


def _max_prompts(manifest: Manifest, device: str, wanted: int | None) -> int:
    """Return the maximum number of prompts per decoder call; a compiled decoder may lower it."""
    if wanted is None:
        wanted = _PROMPT_BATCH_CPU if device == "cpu" else _PROMPT_BATCH
    decoder = manifest.stages["decoder"]
    axis = next(spec.shape[0] for spec in decoder.inputs if spec.name == "point_coords")
    profile = decoder.profile or {}
    return min(wanted, profile[axis].max) if axis in profile else wanted
