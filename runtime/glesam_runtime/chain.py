"""The chain itself, a function a stage: image -> z_L -> z_H -> low-resolution logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.manifest import Manifest, StageName

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine, Value


def encode(engine: Engine, manifest: Manifest, image: Value) -> Value:
    """Run the encoder: image [1, 3, S, S], normalised and padded -> z_L [1, 256, S/16, S/16]."""
    return _of_one_image(engine, manifest, "encoder", image)


def enhance(engine: Engine, manifest: Manifest, embeddings: Value) -> Value:
    """Run the enhancer: z_L [1, 256, S/16, S/16] -> z_H, same shape."""
    return _of_one_image(engine, manifest, "enhancer", embeddings)


def decode(
    engine: Engine, embeddings: Value, prompts: Mapping[str, Value]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the decoder on B prompts.

    Args:
        engine: one with the decoder loaded.
        embeddings: [1, 256, S/16, S/16], of the encoder or the enhancer.
        prompts: the four tensors of `prompts.prompt_tensors`.

    Returns:
        low_res_masks [B, 4, S/4, S/4] and iou_predictions [B, 4].
    """
    outputs = engine.run("decoder", {"image_embeddings": embeddings, **prompts})
    return engine.to_host(outputs["low_res_masks"]), engine.to_host(outputs["iou_predictions"])


def _of_one_image(engine: Engine, manifest: Manifest, stage: StageName, value: Value) -> Value:
    """Run a stage of one input and one output; a static batch is filled up with zeros."""
    spec = manifest.stages[stage]
    (source,), (target,) = spec.inputs, spec.outputs
    batch = manifest.target.batch
    if batch in (1, "dynamic"):
        return engine.run(stage, {source.name: value})[target.name]
    host = engine.to_host(value)
    padded = np.zeros((int(batch), *host.shape[1:]), np.float32)
    padded[: len(host)] = host
    return engine.to_host(engine.run(stage, {source.name: padded})[target.name])[: len(host)]
