"""Runs the chain on calibration images, a stage after the other, and looks at what flows.

Each stage gets what the chain really feeds it: images, the encoder's own outputs, the enhancer's
and prompts. One graph is in memory at a time, one sample's tensors, and of them one group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from glesam_calibration.images import Samples
from glesam_calibration.layers import Layer, find_layers
from glesam_calibration.objects import made_up_objects, prompt_calls, upon_mask
from glesam_calibration.sessions import Watched, groups
from glesam_calibration.state import Cursor, State
from glesam_calibration.statistics import Statistics
from glesam_runtime import masks
from glesam_runtime.bundle import Bundle
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.image import geometry_of, preprocess
from glesam_runtime.manifest import STAGES, StageName

Arrays = Mapping[str, NDArray[np.float32]]
Progress = Callable[[StageName, int, int], object]
"""Told the stage, how many runs of it are done, and of how many."""

BUDGET = 5 << 28
"""Bytes of watched tensors in one run; while ONNX Runtime hands them over it holds them twice."""


Observed = Mapping[str, Statistics]
"""What was seen in one stage, by the tensor's name."""


def observe(
    bundle: Bundle, samples: Samples, state: State, progress: Progress, budget: int = BUDGET
) -> dict[StageName, Observed]:
    """Take statistics of everything that flows into a quantizable layer.

    Args:
        bundle: of float32 graphs.
        samples: what to run.
        state: keeps what is found; a stage that is in it already goes on from there.
        progress: told after each run.
        budget: bytes of watched tensors in one run; what exceeds it takes more runs.

    Raises:
        BackendError: ONNX Runtime is missing or refuses a graph.
        BundleError: an activation is not finite.
    """
    return {
        stage: _observe_stage(bundle, stage, samples, state, progress, budget) for stage in STAGES
    }


def _observe_stage(
    bundle: Bundle,
    stage: StageName,
    samples: Samples,
    state: State,
    progress: Progress,
    budget: int,
) -> Observed:
    path = bundle.graph_path(stage)
    graph = ir.load(path).graph
    layers = find_layers(graph)
    channels = channels_of(layers, graph)
    parts = list(groups(graph, list(dict.fromkeys(layer.activation for layer in layers)), budget))
    del graph
    cursor, found = state.load(stage)
    total = len(samples.samples)
    for number in range(cursor.group, len(parts)):
        watched = Watched(path, parts[number])
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
    """How many channels the last axis of each activation has; None where it is another axis."""
    found: dict[str, int | None] = {}
    for layer in layers:
        weight = graph.initializers[layer.weight].shape
        assert weight is not None, "an initializer has a shape"
        (inputs,) = (weight[layer.summed[0]],) if layer.op in ("MatMul", "Gemm") else (None,)
        found[layer.activation] = inputs if isinstance(inputs, int) else None
    return found


def _calls(
    bundle: Bundle, stage: StageName, samples: Samples, index: int, state: State, watched: Watched
) -> Iterator[Arrays]:
    """Run a stage on a sample; yield what was watched, call by call."""
    if stage == "decoder":
        yield from _decoder_calls(bundle, samples, index, state, watched)
        return
    manifest = bundle.manifest
    (spec,) = manifest.stages[stage].inputs
    if stage == "encoder":
        image = samples.samples[index].image(samples.seed)
        tensor = preprocess(image, manifest.preprocessing).tensor
    else:
        tensor = state.kept("encoder", index)[EMBEDDINGS]
    batch = manifest.target.batch
    # A batch is filled with the image itself: zeros would be in the statistics.
    filled = tensor if batch == "dynamic" else np.repeat(tensor, batch, axis=0)
    results = watched.run({spec.name: filled})
    outputs = {spec.name: results[spec.name][:1] for spec in manifest.stages[stage].outputs}
    state.keep(stage, index, outputs)
    yield results


def _decoder_calls(
    bundle: Bundle, samples: Samples, index: int, state: State, watched: Watched
) -> Iterator[Arrays]:
    """Prompts of every kind, and one upon the mask that an earlier one gave."""
    manifest, sample = bundle.manifest, samples.samples[index]
    features = state.kept("encoder", index)
    features[EMBEDDINGS] = state.kept("enhancer", index)["enhanced_embeddings"]
    height, width = sample.image(samples.seed).shape[:2]
    rules = manifest.preprocessing
    geometry = geometry_of(height, width, rules.image_size, rules.resize)
    name = f"{sample.source.name} {sample.record.level}"
    objects = made_up_objects(height, width, samples.seed, name)
    calls = prompt_calls(objects, geometry, manifest.coordinates, samples.seed, name)
    for kind, prompts in calls.items():
        results = watched.run({**features, **prompts})
        yield results
        if kind == "3-point":
            logits, _ = masks.choose(
                results["low_res_masks"],
                results["iou_predictions"],
                multimask=False,
                rules=manifest.postprocessing,
            )
            again = upon_mask(prompts, masks.for_mask_input(logits, manifest.postprocessing))
            yield watched.run({**features, **again})
