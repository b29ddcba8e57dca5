"""Decode checked prompts on one image or several, in calls of a limited number of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from glesam_runtime import chain, image_index, masks
from glesam_runtime.embedding import ImageEmbedding
from glesam_runtime.errors import BackendError
from glesam_runtime.prompts import PromptBatch, prompt_tensors, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine
    from glesam_runtime.image import Geometry
    from glesam_runtime.manifest import Manifest

Decoded: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32]]"
"""Logits [B, C, S/4, S/4] and predicted IoU [B, C]; C is 3 with multimask output, else 1."""


@dataclass(frozen=True)
class Decoding:
    """The decoder of a loaded bundle."""

    engine: Engine
    manifest: Manifest
    prompt_batch: int
    """Maximum number of prompts per decoder call."""

    def on_image(
        self, features: chain.Features, prompts: PromptBatch, frame: Geometry, multimask: bool
    ) -> Decoded:
        """Decode prompts, given in pixels of `frame.original`, on one image.

        Raises:
            BackendError: the engine failed, or the results are NaN.
        """
        parts = []
        for part in split(prompts, self.prompt_batch):
            tensors = prompt_tensors(part, frame, self.manifest.coordinates)
            low_res, iou = chain.decode(self.engine, features, tensors)
            parts.append(self._chosen(low_res, iou, multimask))
        if not parts:
            return _no_masks(frame, multimask)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([low_res for low_res, _ in parts]), np.concatenate(
            [iou for _, iou in parts]
        )

    def on_images(
        self, asked: Sequence[tuple[ImageEmbedding, PromptBatch]], multimask: bool
    ) -> list[Decoded]:
        """Decode prompts on several images, together if the decoder takes an image index.

        Raises:
            BackendError: the engine failed, or the results are NaN.
        """
        if not image_index.takes_image_index(self.manifest):
            return [
                self.on_image(image.features, prompts, image.geometry, multimask)
                for image, prompts in asked
            ]
        on_images = [
            image_index.PromptsOnImage(
                image.features, prompt_tensors(prompts, image.geometry, self.manifest.coordinates)
            )
            for image, prompts in asked
        ]
        found = [_no_masks(image.geometry, multimask) for image, _ in asked]
        for group in image_index.grouped(on_images):
            members = [on_images[position] for position in group]
            together = image_index.decode_together(
                self.engine, self.manifest, members, self.prompt_batch
            )
            for position, (low_res, iou) in zip(group, together, strict=True):
                found[position] = self._chosen(low_res, iou, multimask)
        return found

    def _chosen(
        self, low_res: NDArray[np.float32], iou: NDArray[np.float32], multimask: bool
    ) -> Decoded:
        """Choose among the decoder's four masks per prompt."""
        if np.isnan(low_res).any() or not np.isfinite(iou).all():
            raise BackendError(
                f"decoder on {self.engine.name}: returned NaN or an infinite IoU; test the "
                "bundle with --selftest, or use another backend or precision"
            )
        return masks.choose(low_res, iou, multimask, self.manifest.postprocessing)


def _no_masks(frame: Geometry, multimask: bool) -> Decoded:
    """Return the results of no prompts."""
    count, side = 3 if multimask else 1, frame.image_size // 4
    return np.zeros((0, count, side, side), np.float32), np.zeros((0, count), np.float32)
