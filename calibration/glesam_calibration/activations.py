"""Run the chain on calibration images, and collect statistics of what flows into each layer.

Each stage gets the inputs that it gets in use: the encoder gets images, the enhancer the outputs of
the encoder, and the decoder the outputs of the enhancer with prompts. Only one graph is in memory
at a time, with one group of tensors of one sample.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from glesam_calibration.attention_products import operand_names
from glesam_calibration.calibration_set import CalibrationSet
from glesam_calibration.kept_statistics import Cursor, KeptStatistics
from glesam_calibration.quantizable_layers import Layer, find_layers
from glesam_calibration.statistics import Statistics
from glesam_calibration.watched_graph import WatchedGraph, group_tensors
from glesam_evaluation.prompting import draw_prompts
from glesam_evaluation.seeds import derive
from glesam_runtime import masks
from glesam_runtime.bundle import Bundle
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.image import Geometry, geometry_of, preprocess
from glesam_runtime.image_index import takes_image_index
from glesam_runtime.manifest import IMAGE_INDEX, STAGES, Coordinates, StageName
from glesam_runtime.prompts import check_prompts, prompt_tensors
from glesam_runtime.timestep_levels import LEVEL, level_tensor, levels_of

Arrays = Mapping[str, NDArray[np.float32]]
Progress = Callable[[StageName, int, int], object]
"""Called with the stage, the number of finished runs of it, and their total."""

BUDGET = 5 << 28
"""Bytes of watched tensors per run. ONNX Runtime holds them twice while it returns them."""


StageStatistics = Mapping[str, Statistics]
"""Statistics of the tensors of one stage, by name."""


def collect_statistics(
    bundle: Bundle,
    samples: CalibrationSet,
    state: KeptStatistics,
    progress: Progress,
    budget: int = BUDGET,
    attention: Collection[StageName] = (),
) -> dict[StageName, StageStatistics]:
    """Collect statistics of every tensor that flows into a quantizable layer.

    Args:
        bundle: bundle of float32 graphs.
        samples: images to run.
        state: stores the statistics; a stage that it already has resumes from there.
        progress: called after each run.
        budget: bytes of watched tensors per run; more tensors take more runs.
        attention: stages of which queries, keys and values are watched too.

    Raises:
        BackendError: ONNX Runtime is missing or refuses a graph.
        BundleError: an activation is not finite.
    """
    return {
        stage: _collect_stage(bundle, stage, samples, state, progress, budget, stage in attention)
        for stage in STAGES
    }


def _collect_stage(
    bundle: Bundle,
    stage: StageName,
    samples: CalibrationSet,
    state: KeptStatistics,
    progress: Progress,
    budget: int,
    attention: bool,
) -> StageStatistics:
    path = bundle.graph_path(stage)
    graph = ir.load(path).graph
    layers = find_layers(graph)
    channels = channels_of(layers, graph)
    if attention:
        channels = dict.fromkeys(operand_names(graph)) | channels
    parts = list(group_tensors(graph, list(channels), budget))
    del graph
    cursor, found = state.load(stage)
    total = len(samples.samples)
    for number in range(cursor.group, len(parts)):
        watched = WatchedGraph(path, parts[number])
        for name in parts[number]:
            found.setdefault(name, Statistics(channels[name]))
        first = cursor.sample if number == cursor.group else 0
        for index in range(first, total):
            for call in _calls(bundle, stage, samples, index, state, watched):
                for name in parts[number]:
                    found[name].update(call[name], f"{path.name}: {name}")
            state.save(stage, Cursor(number, index + 1), found)
            progress(stage, number * total + index + 1, len(parts) * total)
        state.save(stage, Cursor(number + 1, 0), found)
        del watched
    return found


def channels_of(layers: tuple[Layer, ...], graph: ir.Graph) -> dict[str, int | None]:
    """Return the size of the last axis of each activation; None where channels are another axis."""
    found: dict[str, int | None] = {}
    for layer in layers:
        weight = graph.initializers[layer.weight].shape
        assert weight is not None, "an initializer has a shape"
        (inputs,) = (weight[layer.summed[0]],) if layer.op in ("MatMul", "Gemm") else (None,)
        found[layer.activation] = inputs if isinstance(inputs, int) else None
    return found


def _calls(
    bundle: Bundle,
    stage: StageName,
    samples: CalibrationSet,
    index: int,
    state: KeptStatistics,
    watched: WatchedGraph,
) -> Iterator[Arrays]:
    """Run a stage on a sample; yield the watched tensors of each call."""
    if stage == "decoder":
        yield from _decoder_calls(bundle, samples, index, state, watched)
        return
    manifest = bundle.manifest
    spec = manifest.stages[stage].inputs[0]
    if stage == "encoder":
        image = samples.samples[index].image(samples.seed)
        tensor = preprocess(image, manifest.preprocessing).tensor
    else:
        tensor = state.load_outputs("encoder", index)[EMBEDDINGS]
    batch = manifest.target.batch
    # A batch is filled with copies of the image, because zeros would change the statistics.
    filled = tensor if batch == "dynamic" else np.repeat(tensor, batch, axis=0)
    levels = levels_of(manifest) if stage == "enhancer" else ()
    steps: list[int | None] = [level.timestep for level in levels]
    for number, step in enumerate(steps or [None]):
        level = level_tensor(manifest, step, len(filled)) if steps else None
        results = watched.run({spec.name: filled, **({} if level is None else {LEVEL: level})})
        # The decoder gets the latents of all timesteps, those of one from each sample.
        if not steps or number == index % len(steps):
            outputs = {spec.name: results[spec.name][:1] for spec in manifest.stages[stage].outputs}
            state.save_outputs(stage, index, outputs)
        yield results


def _decoder_calls(
    bundle: Bundle,
    samples: CalibrationSet,
    index: int,
    state: KeptStatistics,
    watched: WatchedGraph,
) -> Iterator[Arrays]:
    """Run the decoder with prompts of every kind, and once with a mask prompt."""
    manifest, sample = bundle.manifest, samples.samples[index]
    features = state.load_outputs("encoder", index)
    features[EMBEDDINGS] = state.load_outputs("enhancer", index)["enhanced_embeddings"]
    height, width = sample.image(samples.seed).shape[:2]
    rules = manifest.preprocessing
    geometry = geometry_of(height, width, rules.image_size, rules.resize)
    name = f"{sample.source.name} {sample.record.level}"
    objects = random_rectangles(height, width, samples.seed, name)
    calls = prompt_calls(objects, geometry, manifest.coordinates, samples.seed, name)
    for kind, prompts in calls.items():
        if takes_image_index(manifest):
            prompts[IMAGE_INDEX] = np.zeros(len(prompts["point_coords"]), np.float32)
        results = watched.run({**features, **prompts})
        yield results
        if kind == "3-point":
            logits, _ = masks.choose(
                results["low_res_masks"],
                results["iou_predictions"],
                multimask=False,
                rules=manifest.postprocessing,
            )
            again = with_mask_prompt(prompts, masks.for_mask_input(logits, manifest.postprocessing))
            yield watched.run({**features, **again})


OBJECTS = 3
"""Number of prompted rectangles per image."""
KINDS = ("1-point", "3-point", "box", "noise-box")

Tensors = dict[str, NDArray[np.float32]]


def random_rectangles(height: int, width: int, seed: int, name: str) -> NDArray[np.bool_]:
    """Draw rectangles that stand for objects, as masks bool [OBJECTS,H,W].

    They lie anywhere in the image, and each side is a tenth to all of the image's side.
    """
    rng = np.random.default_rng(derive(seed, name, "objects"))
    masks = np.zeros((OBJECTS, height, width), np.bool_)
    for mask in masks:
        spans = []
        for side in (height, width):
            length = max(1, int(side * rng.uniform(0.1, 1.0)))
            start = int(rng.integers(side - length + 1))
            spans.append(slice(start, start + length))
        mask[tuple(spans)] = True
    return masks


def prompt_calls(
    masks: NDArray[np.bool_], geometry: Geometry, rules: Coordinates, seed: int, name: str
) -> dict[str, Tensors]:
    """Return the prompt tensors of decoder calls for the objects of an image, by kind of prompt.

    Args:
        masks: the objects, bool [K,H,W].
        geometry: geometry of the image.
        rules: coordinate rules of the manifest.
        seed: seed of the positions of the prompts.
        name: name of the image.
    """
    calls = {}
    for kind in KINDS:
        drawn = draw_prompts(masks, range(len(masks)), kind, seed, name)
        batch = check_prompts(geometry, drawn.points, drawn.labels, drawn.boxes)
        calls[kind] = prompt_tensors(batch, geometry, rules)
    refused = calls["3-point"]
    labels = refused["point_labels"].copy()
    labels[:, 2] = 0
    calls["background point"] = {**refused, "point_labels": labels}
    return calls


def with_mask_prompt(
    call: Mapping[str, NDArray[np.float32]], logits: NDArray[np.float32]
) -> Tensors:
    """Return a call with logits of an earlier call, [B,1,S/4,S/4], as its mask prompt."""
    return {**call, "mask_input": logits, "has_mask_input": np.ones(1, np.float32)}
