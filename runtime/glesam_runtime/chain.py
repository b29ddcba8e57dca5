"""Run the three stages, one function each: image -> z_L -> z_H -> low-resolution logits.

The stages exchange the encoder's outputs by name. SAM 2's high-resolution features are among them:
they skip the enhancer and stay on the engine's device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import Manifest, StageName
from glesam_runtime.timestep_levels import LEVEL, level_tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine, Value

EMBEDDINGS = "image_embeddings"
"""Name of z_L or z_H, [1, 256, S/16, S/16]; the only feature that the enhancer replaces."""

Features: TypeAlias = "Mapping[str, Value]"
"""The features of one image, by the names of the encoder's outputs and the decoder's inputs."""


def encode(engine: Engine, manifest: Manifest, image: Value) -> Features:
    """Run the encoder on an image [1, 3, S, S], normalised and padded; return its features."""
    return _run_on_one_image(engine, manifest, "encoder", image)


def enhance(
    engine: Engine,
    manifest: Manifest,
    features: Features,
    timestep: int | Sequence[int] | None = None,
) -> Features:
    """Run the enhancer; return the features with z_H in place of z_L, the others unchanged.

    Args:
        engine: an engine that has loaded the enhancer.
        manifest: the bundle's manifest.
        features: what `encode` returned.
        timestep: the timestep to run, or one for each image, in a bundle with several; None is
            the bundle's default.

    Raises:
        InputError: the bundle does not have the timestep.
        BackendError: the engine failed.
    """
    value = features[EMBEDDINGS]
    level = level_tensor(manifest, timestep, value.shape[0])
    enhanced = _run_on_one_image(engine, manifest, "enhancer", value, level)
    return {**features, EMBEDDINGS: enhanced["enhanced_embeddings"]}


def decode(
    engine: Engine, features: Features, prompts: Mapping[str, Value]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Run the decoder on B prompts.

    Args:
        engine: an engine that has loaded the decoder.
        features: the features of one image, from `encode` or `enhance`.
        prompts: the four tensors of `prompts.prompt_tensors`.

    Returns:
        low_res_masks [B, 4, S/4, S/4] (logits) and iou_predictions [B, 4].
    """
    inputs = {**features, **prompts}
    outputs = engine.run("decoder", inputs)
    count, side = inputs["point_coords"].shape[0], inputs["mask_input"].shape[-1]
    _check_shape("decoder", "low_res_masks", outputs["low_res_masks"], (count, 4, side, side))
    _check_shape("decoder", "iou_predictions", outputs["iou_predictions"], (count, 4))
    return engine.to_host(outputs["low_res_masks"]), engine.to_host(outputs["iou_predictions"])


def _run_on_one_image(
    engine: Engine,
    manifest: Manifest,
    stage: StageName,
    value: Value,
    level: NDArray[np.float32] | None = None,
) -> dict[str, Value]:
    """Run a stage on one image, with its timestep level if any; zeros fill up a static batch."""
    source = manifest.stages[stage].inputs[0]
    batch = manifest.target.batch
    outputs: dict[str, Value]
    if batch in (1, "dynamic"):
        leveled = {} if level is None else {LEVEL: level}
        outputs = engine.run(stage, {source.name: value, **leveled})
    else:
        host = engine.to_host(value)
        padded = np.zeros((int(batch), *host.shape[1:]), np.float32)
        padded[: len(host)] = host
        leveled = {} if level is None else {LEVEL: np.resize(level, int(batch))}
        found = engine.run(stage, {source.name: padded, **leveled})
        outputs = {name: engine.to_host(output)[: len(host)] for name, output in found.items()}
    for spec in manifest.stages[stage].outputs:
        _check_shape(stage, spec.name, outputs[spec.name], (value.shape[0], *spec.shape[1:]))
    return outputs


def _check_shape(stage: StageName, name: str, value: Value, shape: tuple[int | str, ...]) -> None:
    """Refuse an output whose shape only running the graph shows to be wrong.

    Raises:
        BackendError: the shape is not that of the contract.
    """
    if tuple(value.shape) != shape:
        raise BackendError(
            f"{stage}: {name} has the shape {list(value.shape)}, the contract says {list(shape)}; "
            "export the bundle again"
        )
