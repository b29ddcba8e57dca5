"""Profile each stage: list node types and nodes by cost, as the engine's counters report it.

Graphs are compiled the way the backend compiles them, with the engine's counters on.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from glesam_benchmark.report_file import ReportHead
from glesam_benchmark.timing import golden_inputs
from glesam_runtime.backends import BACKENDS
from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.engine_options import EngineOptions, RequestedEngine
from glesam_runtime.engine_selection import select_engine
from glesam_runtime.errors import InputError
from glesam_runtime.image_index import takes_image_index
from glesam_runtime.manifest import IMAGE_INDEX, STAGES, StageName
from glesam_runtime.timestep_levels import LEVEL, level_tensor

Arrays = Mapping[str, NDArray[np.float32]]
"""Tensors by name."""


class Node(msgspec.Struct, frozen=True):
    """One node of the compiled graph, with its mean seconds per run."""

    name: str
    type: str
    kernel: str
    """The engine's name for the implementation; empty if it gives none."""
    seconds: float


class ProfiledGraph(Protocol):
    """A loaded graph whose engine measures every node."""

    def run(self, inputs: Arrays) -> None:
        """Run the graph once."""

    def nodes(self) -> list[Node]:
        """Return the mean time of each node over all runs but the first."""


class NodeType(msgspec.Struct, frozen=True):
    """All nodes of one type together."""

    type: str
    count: int
    seconds: float


class StageProfile(msgspec.Struct, frozen=True):
    """The profile of one stage."""

    stage: StageName
    seconds: float
    """Mean wall time of a run, with the counters on."""
    types: tuple[NodeType, ...]
    """The costliest first, in `nodes` too."""
    nodes: tuple[Node, ...]


class Profile(msgspec.Struct, frozen=True):
    """The profile of one engine."""

    engine: dict[str, str]
    stages: tuple[StageProfile, ...]


OpenGraph = Callable[[Bundle, StageName, EngineOptions, str], AbstractContextManager[ProfiledGraph]]
"""Opens a stage of a bundle for profiling, with engine options and a precision."""


def profile_bundle(bundle: Bundle, choice: RequestedEngine, rounds: int) -> Profile:
    """Profile every stage on its golden inputs.

    Raises:
        BackendError: the engine is missing or cannot run the bundle.
        InputError: the engine has no profiler.
    """
    options = choice.options()
    # Load the bundle once the way glesam-run does, to learn which engine and precision that gives.
    chosen = select_engine(bundle, choice.backend, choice.device, STAGES, options)
    engine = chosen.engine.describe()
    del chosen
    open_graph = opener_of(_profiler_of(engine))
    # A cache would hold graphs that were compiled without counters.
    options = replace(options, cache=None)
    given = _stage_inputs(bundle)
    stages = []
    for stage in STAGES:
        with open_graph(bundle, stage, options, engine.get("precision", "fp32")) as graph:
            seconds = _timed(graph, given[stage], rounds)
            stages.append(_stage_profile(stage, seconds, graph.nodes()))
    return Profile(engine, tuple(stages))


def opener_of(profiler: str) -> OpenGraph:
    """Return the function of a profiler that opens a graph for profiling.

    Args:
        profiler: names the module `glesam_benchmark.profile_<profiler>`, which defines
            `open_profiled_graph`.
    """
    module = importlib.import_module(f"glesam_benchmark.profile_{profiler}")
    opener: OpenGraph = module.open_profiled_graph
    return opener


def _profiler_of(engine: Mapping[str, str]) -> str:
    """Return the name of the profiler for an engine, given the engine's description.

    Raises:
        InputError: the engine has no profiler on this device.
    """
    name = engine["engine"]
    profiler = BACKENDS[name].profiler if name in BACKENDS else None
    if engine["device"] != "cpu" or profiler is None:
        known = " or ".join(f"--backend {each.name}" for each in BACKENDS.values() if each.profiler)
        raise InputError(
            f"profile: {name} on {engine['device']} has no profiler; give {known}, on the CPU"
        )
    return profiler


def _timed(graph: ProfiledGraph, inputs: Arrays, rounds: int) -> float:
    """Return the mean seconds of a run, after one warm-up run."""
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
    """Return each stage's golden inputs: one image, repeated to a fixed batch, and one prompt."""
    given, golden = golden_inputs(bundle), load_golden(bundle)
    features = {
        spec.name: np.asarray(golden[spec.name], np.float32)
        for spec in bundle.manifest.stages["encoder"].outputs
    }
    enhanced = np.asarray(golden["enhanced_embeddings"], np.float32)
    prompts = dict(given.first)
    if takes_image_index(bundle.manifest):
        prompts[IMAGE_INDEX] = np.zeros(len(prompts["point_coords"]), np.float32)
    batch = bundle.manifest.target.batch
    images = 1 if batch == "dynamic" else int(batch)
    latents = {EMBEDDINGS: np.repeat(features[EMBEDDINGS], images, axis=0)}
    level = level_tensor(bundle.manifest, None, images)
    latents |= {} if level is None else {LEVEL: level}
    return {
        "encoder": {"image": np.repeat(given.image, images, axis=0)},
        "enhancer": latents,
        "decoder": {**features, EMBEDDINGS: enhanced, **prompts},
    }


class ProfileReport(msgspec.Struct, frozen=True):
    """The JSON document of `glesam-bench profile`."""

    about: ReportHead
    engines: dict[str, Profile]
    """Profiles by the engine name given on the command line."""


def profile_table(found: ProfileReport, top: int) -> str:
    """Return the `top` costliest node types and nodes of each stage as text."""
    lines = [
        f"{found.about.model}; {found.about.host}; milliseconds, means of {found.about.rounds} runs"
    ]
    for name, profile in found.engines.items():
        engine = " ".join(profile.engine.values())
        for stage in profile.stages:
            lines += ["", f"{name}: {stage.stage} ({engine})", *_stage(stage, top)]
    return "\n".join(lines)


def _stage(stage: StageProfile, top: int) -> list[str]:
    total = sum(kind.seconds for kind in stage.types)
    lines = [
        f"  wall time {1000 * stage.seconds:.2f}, sum of nodes {1000 * total:.2f}",
        f"  {'node type':<40}{'nodes':>8}{'ms':>12}{'share':>8}",
    ]
    for kind in stage.types[:top]:
        share = kind.seconds / total
        words = f"  {kind.type:<40.40}{kind.count:>8}"
        lines.append(f"{words}{1000 * kind.seconds:>12.3f}{share:>8.1%}")
    lines.append(f"  {'node':<68}{'ms':>12}{'share':>8}")
    for node in stage.nodes[:top]:
        words = f"{node.type}  {node.name}  {node.kernel}".rstrip()
        lines.append(f"  {words:<68.68}{1000 * node.seconds:>12.3f}{node.seconds / total:>8.1%}")
    return lines
