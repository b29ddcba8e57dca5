"""Predict masks with the calls of segment_anything's SamPredictor and sam2's SAM2ImagePredictor.

An image is encoded and enhanced once and can then be prompted many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from glesam_runtime import chain, masks
from glesam_runtime.errors import InputError
from glesam_runtime.image import check_image, preprocess
from glesam_runtime.one_thread import one_thread_at_a_time
from glesam_runtime.prompts import PromptBatch, as_batch
from glesam_runtime.sam_attributes import ModelAttributes, Transform
from glesam_runtime.torch_calls import TorchCalls

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


class GleSamPredictor(TorchCalls):
    """A predictor with the calls and semantics of segment_anything's SamPredictor.

    It also has those of sam2's SAM2ImagePredictor, and it refuses what both of them compute
    nonsense from: points and boxes far outside the image, NaN, unknown labels and no prompt.

    A predictor holds one image at a time, or the images of `set_image_batch`. It serves one thread
    at a time: give each other thread a `share`. A call during a call of another thread raises
    `BusyError` and changes nothing. Pickling it keeps the bundle's path, the backend and the
    options; unpickling loads the bundle again, without the image.
    """

    @property
    def original_size(self) -> tuple[int, int] | None:
        """Return (H, W) of the image in pixels, or None if no image is set."""
        return self._geometry.original if self._geometry else None

    @property
    def input_size(self) -> tuple[int, int] | None:
        """Return (h, w) of the resized image in pixels, or None if no image is set."""
        return self._geometry.resized if self._geometry else None

    @property
    def features(self) -> NDArray[np.float32] | None:
        """Return the embeddings of `get_image_embedding`, or None if no image is set."""
        return self.get_image_embedding() if self.is_image_set else None

    @property
    def device(self) -> str:
        """Return the device of the engine, such as "cpu" or "cuda:0"."""
        return self.engine.device

    @property
    def mask_threshold(self) -> float:
        """Return the logit above which a pixel belongs to the mask."""
        return self.bundle.manifest.postprocessing.mask_threshold

    @property
    def model(self) -> ModelAttributes:
        """Return the attributes that programs read from `SamPredictor.model`."""
        side = self.bundle.manifest.preprocessing.image_size
        return ModelAttributes(side, self.mask_threshold, self.device)

    @property
    def transform(self) -> Transform:
        """Return what resizes images and coordinates to the encoder's input."""
        return Transform(self.bundle.manifest.preprocessing)

    @one_thread_at_a_time
    def set_image(self, image: NDArray[np.uint8] | Image.Image, image_format: str = "RGB") -> None:
        """Encode and enhance an image.

        Args:
            image: uint8 [H, W, 3], or a PIL image of the mode RGB. The orientation in the EXIF data
                of a PIL image is not applied; `read_image` does that for files.
            image_format: order of an array's channels, "RGB" or "BGR".

        Raises:
            InputError: it is not such an image; the previous image stays set.
        """
        if image_format not in ("RGB", "BGR"):
            raise InputError(f'image_format {image_format!r}: must be "RGB" or "BGR"')
        if isinstance(image, Image.Image):
            image = _pixels_of(image, image_format)
        image = check_image(image)
        with self._timed("preprocess"):
            rgb = image if image_format == "RGB" else np.ascontiguousarray(image[..., ::-1])
            prepared = preprocess(rgb, self.bundle.manifest.preprocessing)
        self.set_prepared(prepared)

    @one_thread_at_a_time
    def get_image_embedding(self) -> NDArray[np.float32]:
        """Return the image's embeddings, float32 [1, 256, S/16, S/16]; `enhanced` says which.

        After `set_image_batch` they are [B, 256, S/16, S/16].

        Raises:
            InputError: no image is set.
        """
        if self._images:
            return np.concatenate([each.features[chain.EMBEDDINGS] for each in self._images])
        return self.engine.to_host(self._image_features()[chain.EMBEDDINGS])

    @one_thread_at_a_time
    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[NDArray[np.bool_] | NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Predict masks for one prompt, or for B prompts at once.

        Each array may have a leading axis B. The results have it if B is not 1: two boxes [2, 4]
        give [2, C, H, W], one box [4] or [1, 4] gives [C, H, W], and no boxes [0, 4] give
        [0, C, H, W]. So do segment_anything for one prompt and sam2 for several.

        Args:
            point_coords: [N, 2] or [B, N, 2], (x, y) in pixels of the image.
            point_labels: [N] or [B, N], 1 for the object, 0 for the background, -1 for no point,
                which fills up prompts of fewer points.
            box: [4] or [B, 4], x0, y0, x1, y1 in pixels of the image.
            mask_input: [1, S/4, S/4] or [B, 1, S/4, S/4], low_res_masks of an earlier call. One
                mask serves all B prompts.
            multimask_output: True (the default, as in segment_anything) returns three masks per
                prompt, False one. glesam-run and the C++ API return one by default.
            return_logits: True returns float32 logits instead of bool masks.
            normalize_coords: False takes points and boxes as shares of the image's width and
                height, from 0 to 1, as in sam2.

        Returns:
            masks [C, H, W], iou_predictions [C] and low_res_masks [C, S/4, S/4]; C is 3 with
            `multimask_output`, else 1.

        Raises:
            InputError: no image is set, or a prompt cannot be used.
            BackendError: the engine failed, or the results are NaN.
        """
        batched, prompts = self._as_batch(
            point_coords, point_labels, box, mask_input, normalize_coords=normalize_coords
        )
        return self._finished(self.decode(prompts, multimask_output), batched, return_logits)

    def _as_batch(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        *,
        normalize_coords: bool,
    ) -> tuple[bool, PromptBatch]:
        """Check the arguments of `predict`; return whether they are a batch, and the prompts."""
        if not normalize_coords:
            height, width = self.geometry.original
            point_coords = _scaled(point_coords, (width, height), "points")
            box = _scaled(box, (width, height, width, height), "box")
        return as_batch(self.geometry, point_coords, point_labels, box, mask_input)

    def _finished(
        self,
        decoded: tuple[NDArray[np.float32], NDArray[np.float32]],
        batched: bool,
        return_logits: bool,
    ) -> tuple[NDArray[np.bool_] | NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Turn decoded logits and IoU into what `predict` returns."""
        low_res, iou = decoded
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

    @one_thread_at_a_time
    def set_image_batch(self, image_list: Sequence[NDArray[np.uint8] | Image.Image]) -> None:
        """Encode and enhance several images of any sizes, for `predict_batch`.

        Their embeddings are kept in the host's memory: 4 MiB each with SAM at full size, 16 MiB
        with SAM 2. `predict` then uses the last image, as in sam2.

        Args:
            image_list: images as `set_image` takes them, RGB.

        Raises:
            InputError: the list is empty, or an element is not such an image, which the message
                numbers; the previous images stay set.
        """
        if not isinstance(image_list, list | tuple) or not image_list:
            raise InputError("image_list: must be a list of at least one image")
        worker, embeddings = copy(self), []
        for index, image in enumerate(image_list):
            try:
                worker.set_image(image)
            except InputError as error:
                raise InputError(f"image_list[{index}]: {error}") from error
            embeddings.append(worker.get_embedding())
        last = embeddings[-1]
        self.set_features(last.geometry, last.features, last.branch)
        self._images = tuple(embeddings)

    @one_thread_at_a_time
    def predict_batch(
        self,
        point_coords_batch: Sequence[ArrayLike | None] | None = None,
        point_labels_batch: Sequence[ArrayLike | None] | None = None,
        box_batch: Sequence[ArrayLike | None] | None = None,
        mask_input_batch: Sequence[ArrayLike | None] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[
        list[NDArray[np.bool_] | NDArray[np.float32]],
        list[NDArray[np.float32]],
        list[NDArray[np.float32]],
    ]:
        """Predict masks for the images of `set_image_batch`.

        A bundle that was exported with `--image-index` decodes prompts of all images together.

        Args:
            point_coords_batch: for each image, what `predict` takes as `point_coords`, or None.
            point_labels_batch: the same for `point_labels`.
            box_batch: the same for `box`.
            mask_input_batch: the same for `mask_input`.
            multimask_output: as in `predict`.
            return_logits: as in `predict`.
            normalize_coords: as in `predict`.

        Returns:
            Lists of what `predict` returns for each image: masks, iou_predictions, low_res_masks.

        Raises:
            InputError: `set_image_batch` was not called, a list has not one element for each image,
                or a prompt cannot be used, which the message says for which image.
        """
        if not self._images:
            raise InputError("no batch of images is set; call set_image_batch first")
        prompts = {
            "point_coords": point_coords_batch,
            "point_labels": point_labels_batch,
            "box": box_batch,
            "mask_input": mask_input_batch,
        }
        for name, values in prompts.items():
            if values is not None and len(values) != len(self._images):
                raise InputError(
                    f"{name}_batch: {len(values)} elements for {len(self._images)} images"
                )
        worker, batches = copy(self), []
        for index, embedding in enumerate(self._images):
            worker.set_features(embedding.geometry, embedding.features)
            own = {name: values[index] for name, values in prompts.items() if values is not None}
            try:
                batches.append(worker._as_batch(**own, normalize_coords=normalize_coords))
            except InputError as error:
                raise InputError(f"image {index} of the batch: {error}") from error
        asked = [(image, batch) for image, (_, batch) in zip(self._images, batches, strict=True)]
        results = []
        decoded = self.decode_images(asked, multimask_output)
        for (embedding, _), (batched, _), each in zip(asked, batches, decoded, strict=True):
            worker.set_features(embedding.geometry, embedding.features)
            results.append(worker._finished(each, batched, return_logits))
        made, scores, low_res = zip(*results, strict=True)
        return list(made), list(scores), list(low_res)

    def reset_predictor(self) -> None:
        """Forget the image, or the images of a batch, as `reset_image` does."""
        self.reset_image()


def _pixels_of(image: Image.Image, image_format: str) -> NDArray[np.uint8]:
    """Return the pixels of a PIL image, uint8 [H, W, 3].

    Raises:
        InputError: its mode is not RGB, it is closed, or `image_format` says BGR.
    """
    if image_format != "RGB":
        raise InputError(f"image_format {image_format!r}: PIL images are RGB; leave it out")
    if image.mode != "RGB":
        raise InputError(
            f'image: a PIL image of the mode {image.mode}; call image.convert("RGB"), or read its '
            "file with glesam_runtime.read_image"
        )
    try:
        return np.array(image, np.uint8)
    except ValueError as error:  # Pillow's, for a closed image
        raise InputError(f"image: the PIL image cannot be read ({error})") from error


def _scaled(
    shares: ArrayLike | None, sides: tuple[int, ...], name: str
) -> NDArray[np.float64] | None:
    """Return shares of the image's sides in pixels.

    Raises:
        InputError: the last axis has another length than `sides`, or values are no numbers.
    """
    if shares is None:
        return None
    try:
        values = np.asarray(shares, np.float64)
        return values * np.asarray(sides) if values.size else values
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: not an array of numbers ({error})") from error
