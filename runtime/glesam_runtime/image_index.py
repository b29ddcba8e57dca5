"""Decode prompts of several images in one call, with a decoder that takes an image index.

Such a decoder is the feature "image_index" of a bundle. It takes the features of I images and, for
each of its B prompts, the number of the image that the prompt is on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from msgspec import UNSET

from glesam_runtime import chain
from glesam_runtime.backends.base import ForwardingEngine
from glesam_runtime.manifest import IMAGE_INDEX, Manifest, StageName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine, Value


_ANY_NUMBER = 1 << 30


def takes_image_index(manifest: Manifest) -> bool:
    """Return whether a bundle's decoder takes prompts of several images."""
    return manifest.requires is not UNSET and IMAGE_INDEX in manifest.requires


@dataclass(frozen=True)
class OneImageEngine(ForwardingEngine):
    """Add the image index to decoder calls that have none: all prompts are on the only image."""

    @property
    def kept(self) -> str:
        """Return the hashes of what the engine loaded from a cache; "" if nothing was."""
        return str(getattr(self.engine, "kept", ""))

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph.

        Raises:
            BackendError: the engine failed.
        """
        if stage == "decoder" and IMAGE_INDEX not in inputs:
            prompts = inputs["point_coords"].shape[0]
            inputs = {**inputs, IMAGE_INDEX: np.zeros(prompts, np.float32)}
        return self.engine.run(stage, inputs)


@dataclass(frozen=True)
class PromptsOnImage:
    """Prompts on one image, as tensors.

    Attributes:
        features: the image's features, each with a leading axis of 1.
        tensors: the four tensors of `prompts.prompt_tensors`.
    """

    features: chain.Features
    tensors: Mapping[str, NDArray[np.float32]]

    @property
    def size(self) -> int:
        """Return the number of prompts."""
        return len(self.tensors["point_coords"])

    @property
    def kind(self) -> tuple[int, bool]:
        """Return what prompts of one call must share: points per prompt, and a mask or none."""
        has_mask = bool(self.tensors["has_mask_input"][0])
        return self.tensors["point_coords"].shape[1], has_mask


def decode_together(
    engine: Engine, manifest: Manifest, asked: Sequence[PromptsOnImage], most: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Decode prompts of one kind on several images, in as few calls as possible.

    Args:
        engine: an engine of a bundle with the feature.
        manifest: the bundle's manifest; a compiled decoder limits the images per call.
        asked: prompts that have the same `kind`, at least one of them.
        most: maximum number of prompts per call.

    Returns:
        For each element low_res_masks [B, 4, S/4, S/4] and iou_predictions [B, 4].
    """
    tensors = {
        name: np.concatenate([each.tensors[name] for each in asked])
        for name in asked[0].tensors
        if name != "has_mask_input"
    }
    owner = np.repeat(np.arange(len(asked)), [each.size for each in asked])
    logits, scores = [], []
    for part in _calls(owner, most, _most_images(manifest)):
        images, index = np.unique(owner[part], return_inverse=True)
        inputs = {name: values[part] for name, values in tensors.items()}
        inputs["has_mask_input"] = asked[0].tensors["has_mask_input"]
        inputs[IMAGE_INDEX] = index.astype(np.float32)
        stacked = _stacked(engine, [asked[image].features for image in images])
        low_res, iou = chain.decode(engine, stacked, inputs)
        logits.append(low_res)
        scores.append(iou)
    ends = np.cumsum([each.size for each in asked])[:-1]
    return list(
        zip(
            np.split(np.concatenate(logits), ends),
            np.split(np.concatenate(scores), ends),
            strict=True,
        )
    )


def grouped(asked: Sequence[PromptsOnImage]) -> list[list[int]]:
    """Return the positions of prompts that can share calls; those without prompts are left out."""
    groups: dict[tuple[int, bool], list[int]] = {}
    for position, each in enumerate(asked):
        if each.size:
            groups.setdefault(each.kind, []).append(position)
    return list(groups.values())


def _calls(owner: NDArray[np.intp], most: int, most_images: int) -> Iterator[slice]:
    """Cut prompts, in the order of their images, into calls of limited prompts and images."""
    start = 0
    while start < len(owner):
        fits = np.searchsorted(owner, owner[start] + most_images)
        stop = min(start + most, int(fits))
        yield slice(start, stop)
        start = stop


def _most_images(manifest: Manifest) -> int:
    """Return the maximum number of images per call; ONNX graphs take any number."""
    profile = manifest.stages["decoder"].profile or {}
    return profile["I"].max if "I" in profile else _ANY_NUMBER


def _stacked(engine: Engine, features: Sequence[chain.Features]) -> chain.Features:
    """Return the features of images stacked on the host; those of one image stay where they are."""
    if len(features) == 1:
        return features[0]
    return {
        name: np.concatenate([engine.to_host(each[name]) for each in features])
        for name in features[0]
    }
