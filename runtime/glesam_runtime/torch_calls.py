"""Offer the calls of SamPredictor that take and return torch tensors.

Their coordinates are in pixels of the encoder's input, as `transform.apply_coords_torch` returns
them, not in pixels of the image. The runtime never imports torch: the caller has done so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime import masks
from glesam_runtime.errors import InputError
from glesam_runtime.image import Geometry, Preprocessed
from glesam_runtime.limits import check_picture
from glesam_runtime.one_thread import one_thread_at_a_time
from glesam_runtime.predictor_core import PredictorCore
from glesam_runtime.prompts import check_prompts
from glesam_runtime.torch_tensors import Tensor, first_tensor, like, to_numpy, torch_module

if TYPE_CHECKING:
    from collections.abc import Sequence


class TorchCalls(PredictorCore):
    """Calls with torch tensors, for programs that have imported torch."""

    @one_thread_at_a_time
    def set_torch_image(
        self, transformed_image: Tensor, original_image_size: Sequence[int]
    ) -> None:
        """Encode and enhance an image that is resized already.

        Args:
            transformed_image: tensor [1, 3, h, w], RGB with values from 0 to 255. Its longer side
                is S; with a SAM 2 bundle both sides are S.
            original_image_size: (H, W) of the image before resizing, in pixels.

        Raises:
            InputError: the tensor has another shape; the previous image stays set.
        """
        rules = self.bundle.manifest.preprocessing
        torch_module(transformed_image, "transformed_image")
        side, shape = rules.image_size, list(transformed_image.shape)
        fits = len(shape) == 4 and shape[:2] == [1, 3] and min(shape) > 0
        square = rules.resize == "square"
        if not fits or max(shape[2:]) != side or (square and min(shape[2:]) != side):
            sides = "both sides" if square else "the longer side"
            raise InputError(
                f"transformed_image: shape {shape}, but [1, 3, h, w] with {sides} {side} is needed"
            )
        height, width = (int(each) for each in original_image_size)
        if min(height, width) < 1:
            raise InputError(f"original_image_size: {height}, {width}, but at least 1, 1 is needed")
        check_picture(width, height, "original_image_size")
        with self._timed("preprocess"):
            pixels = np.asarray(to_numpy(transformed_image[0]), np.float32)
            mean, std = (np.array(each, np.float32) for each in (rules.mean, rules.std))
            tensor = np.zeros((1, 3, side, side), np.float32)
            tensor[0, :, : shape[2], : shape[3]] = (pixels - mean[:, None, None]) / std[
                :, None, None
            ]
        geometry = Geometry(side, (shape[2], shape[3]), (height, width))
        self.set_prepared(Preprocessed(tensor, geometry))

    @one_thread_at_a_time
    def predict_torch(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predict masks for B prompts; the results always have the axis B.

        Args:
            point_coords: [B, N, 2], (x, y) in pixels of the encoder's input.
            point_labels: [B, N], 1 for the object, 0 for the background, -1 for no point.
            boxes: [B, 4], x0, y0, x1, y1 in pixels of the encoder's input.
            mask_input: [B, 1, S/4, S/4] or [1, 1, S/4, S/4], low_res_masks of an earlier call.
            multimask_output: True returns three masks per prompt, False one.
            return_logits: True returns float32 logits instead of bool masks.

        Returns:
            Tensors on the device of the prompts: masks [B, C, H, W], iou_predictions [B, C] and
            low_res_masks [B, C, S/4, S/4].

        Raises:
            InputError: no image is set, no prompt is a tensor, or a prompt cannot be used.
        """
        given = (point_coords, point_labels, boxes, mask_input)
        tensor, geometry = first_tensor(*given), self.geometry
        frame = Geometry(geometry.image_size, geometry.resized, geometry.resized)
        arrays = (to_numpy(each) for each in given)
        prompts = check_prompts(frame, *arrays, swapped_corners=True)
        low_res, iou = self._decode(prompts, frame, multimask_output)
        rules = self.bundle.manifest.postprocessing
        with self._timed("masks"):
            full = (
                masks.upscale(low_res, geometry, rules)
                if return_logits
                else self.binarize(low_res).masks
            )
        results = (full, iou, masks.for_mask_input(low_res, rules))
        made, scores, logits = (like(np.ascontiguousarray(each), tensor) for each in results)
        return made, scores, logits
