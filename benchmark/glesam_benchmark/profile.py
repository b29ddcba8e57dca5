"""Where the time goes: node types and nodes of each stage by what they cost, as the engine counts.

Graphs are compiled as the backend compiles them, but with the engine's counters on.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import msgspec
import numpy as np

from glesam_benchmark.counting import Arrays, Counted, Node
from glesam_benchmark.inputs import golden_inputs
from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.engine_options import EngineOptions, RequestedEngine
from glesam_runtime.engine_selection import select_engine
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import STAGES, StageName


class NodeType(msgspec.Struct, frozen=True):
    """All nodes of one type."""

    type: str
    count: int
    seconds: float


class StageProfile(msgspec.Struct, frozen=True):
    """One stage."""

    stage: StageName
    seconds: float
    """Of a run on the clock, counters on; the mean."""
    types: tuple[NodeType, ...]
    """The costliest first; so are the nodes."""
    nodes: tuple[Node, ...]


class Profile(msgspec.Struct, frozen=True):
    """One engine."""

    engine: dict[str, str]
    stages: tuple[StageProfile, ...]


Open = Callable[[Bundle, StageName, EngineOptions, str], AbstractContextManager[Counted]]
"""A graph, how it is to run, the precision -> the graph, counting."""


def profile(bundle: Bundle, choice: RequestedEngine, rounds: int) -> Profile:
    """Profile every stage on its golden inputs.

    Raises:
        BackendError: the engine is missing or cannot run it.
        InputError: an engine that does not count.
    """
    options = choice.options()
    # Loaded once as glesam-run does, to hear which engine and precision that is.
    chosen = select_engine(bundle, choice.backend, choice.device, STAGES, options)
    engine = chosen.engine.describe()
    del chosen
    opened = _opener(engine)
    # What a cache holds was compiled without counters.
    options = replace(options, cache=None)
    given = _stage_inputs(bundle)
    stages = []
    for stage in STAGES:
        with opened(bundle, stage, options, engine.get("precision", "fp32")) as graph:
            seconds = _timed(graph, given[stage], rounds)
            stages.append(_stage_profile(stage, seconds, graph.nodes()))
    return Profile(engine, tuple(stages))


def _opener(engine: Mapping[str, str]) -> Open:
    name = engine["engine"]
    if engine["device"] == "cpu" and name == "openvino":
        from glesam_benchmark.profile_openvino import counting_openvino

        return counting_openvino
    if engine["device"] == "cpu" and name == "onnxruntime":
        from glesam_benchmark.profile_onnxruntime import counting_onnxruntime

        return counting_onnxruntime
    raise InputError(
        f"profile: {name} on {engine['device']} is not profiled; "
        "give --backend openvino or --backend onnxruntime, on the CPU"
    )


def _timed(graph: Counted, inputs: Arrays, rounds: int) -> float:
    """Mean seconds of a run, after one that warms up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        graph.run(inputs)
        seconds.append(time.perf_counter() - start)
    return statistics.fmean(seconds[1:])


def _stage_profile(stage: StageName, seconds: float, nodes: Iterable[Node]) -> StageProfile:
    ranked = sorted(nodes, key=lambda node: -node.seconds)
    by_type: dict[str, list[float]] = defaultdict(list)
    for node in ranked:
        by_type[node.type].append(node.seconds)
    types = (NodeType(kind, len(each), sum(each)) for kind, each in by_type.items())
    return StageProfile(
        stage, seconds, tuple(sorted(types, key=lambda kind: -kind.seconds)), tuple(ranked)
    )


def _stage_inputs(bundle: Bundle) -> dict[StageName, Arrays]:
    """Each stage's true inputs, one image and one prompt, filled up to a fixed batch."""
    given, golden = golden_inputs(bundle), load_golden(bundle)
    features = {
        spec.name: np.asarray(golden[spec.name], np.float32)
        for spec in bundle.manifest.stages["encoder"].outputs
    }
    enhanced = np.asarray(golden["enhanced_embeddings"], np.float32)
    batch = bundle.manifest.target.batch
    images = 1 if batch == "dynamic" else int(batch)
    return {
        "encoder": {"image": np.repeat(given.image, images, axis=0)},
        "enhancer": {EMBEDDINGS: np.repeat(features[EMBEDDINGS], images, axis=0)},
        "decoder": {**features, EMBEDDINGS: enhanced, **given.first},
    }
