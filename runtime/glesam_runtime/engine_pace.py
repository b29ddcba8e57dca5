"""Compare what engines need for the expected work on a small bundle: to start, and to run.

How much faster than another an engine is differs between CPUs by more than the start is worth, so
much work is worth a measurement, which the user's cache keeps (docs/adr/0035).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from glesam_runtime import chain, engine_memory
from glesam_runtime.backends import BACKENDS, Costs
from glesam_runtime.expected_work import ExpectedWork
from glesam_runtime.verbosity import timed_detail

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.manifest import StageName

Result = TypeVar("Result")
_WORTH_MEASURING = 5.0
"""Seconds of expected work from which engines are measured. Measuring nano takes about one."""
_ROUNDS = 5


@dataclass(frozen=True)
class Comparison:
    """What the engines need, by the backend's name."""

    costs: Mapping[str, Costs]
    measured: bool

    def ordered(self, work: ExpectedWork) -> list[str]:
        """Return the names of the backends, the one that needs least for the work first."""
        return sorted(self.costs, key=lambda name: work.seconds(self.costs[name]))

    def describe(self, work: ExpectedWork) -> str:
        """Return what decides between the engines, for a person."""
        what = "measured" if self.measured else "estimated"
        if work.has_end:
            needs = {name: f"{work.seconds(each):.1f} s" for name, each in self.costs.items()}
        else:
            what += " per image and prompt"
            needs = {
                name: f"{1e3 * (each.image + each.prompt):.0f} ms"
                for name, each in self.costs.items()
            }
        return f"{what}: {', '.join(f'{name} {needs[name]}' for name in self.ordered(work))}"


def general(names: Sequence[str]) -> Comparison:
    """Return the comparison of backends for ONNX bundles that holds for CPUs in general."""
    costs = {name: BACKENDS[name].costs for name in names}
    return Comparison({name: each for name, each in costs.items() if each}, measured=False)


def known(
    bundle: Bundle, names: Sequence[str], stages: Sequence[StageName], options: EngineOptions
) -> Comparison:
    """Return the comparison that a program measured on this machine, or else the general one.

    Args:
        bundle: the bundle.
        names: backends for ONNX bundles.
        stages: the stages that are loaded.
        options: how the engines are to run.
    """
    note = engine_memory.remembered().get(_key(bundle, names, stages, options), "")
    costs = _read(note, names)
    return general(names) if costs is None else Comparison(costs, measured=True)


def is_worth_measuring(comparison: Comparison, work: ExpectedWork) -> bool:
    """Return whether the work is so much that a measurement costs little beside it."""
    if comparison.measured or len(comparison.costs) < 2:
        return False
    return min(work.seconds(each) for each in comparison.costs.values()) >= _WORTH_MEASURING


def measure(
    bundle: Bundle,
    engines: Mapping[str, tuple[Engine, float]],
    stages: Sequence[StageName],
    options: EngineOptions,
) -> Comparison:
    """Measure engines in turns, and remember what they need.

    Args:
        bundle: the bundle.
        engines: by backend, the loaded engine and the seconds that loading took.
        stages: the loaded stages, the encoder and the decoder among them.
        options: how the engines run.
    """
    size = bundle.manifest.preprocessing.image_size
    image = np.random.default_rng(0).standard_normal((1, 3, size, size), np.float32)
    prompt = {
        "point_coords": np.full((1, 2, 2), size / 2, np.float32),
        "point_labels": np.array([[1, -1]], np.float32),
        "mask_input": np.zeros((1, 1, size // 4, size // 4), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in engines}
    with timed_detail(f"comparing the speed of {' and '.join(engines)}"):
        # The first round allocates memory and does not count.
        for round_number in range(_ROUNDS + 1):
            for name, (engine, _) in engines.items():
                times = _times(bundle, engine, image, prompt, enhance="enhancer" in stages)
                if round_number:
                    found[name].append(times)
    costs = {
        name: Costs(start, *(min(column) for column in zip(*found[name], strict=True)))
        for name, (_, start) in engines.items()
    }
    if key := _key(bundle, list(engines), stages, options):
        note = json.dumps({name: astuple(each) for name, each in costs.items()})
        engine_memory.remember({**engine_memory.remembered(), key: note})
    return Comparison(costs, measured=True)


def _times(
    bundle: Bundle,
    engine: Engine,
    image: np.ndarray,
    prompt: Mapping[str, np.ndarray],
    *,
    enhance: bool,
) -> tuple[float, float]:
    """Return the seconds of an image and of a prompt."""
    manifest = bundle.manifest

    def set_image() -> chain.Features:
        features = chain.encode(engine, manifest, image)
        return chain.enhance(engine, manifest, features) if enhance else features

    features, per_image = timed(set_image)
    _, per_prompt = timed(lambda: chain.decode(engine, features, prompt))
    return per_image, per_prompt


def timed(call: Callable[[], Result]) -> tuple[Result, float]:
    """Return the result of a call and the seconds it takes on a machine that does nothing else.

    These are the seconds that pass on an idle machine. While others use the cores, the seconds of
    this process's processor time are fewer and the better estimate.
    """
    wall, processor = time.perf_counter(), time.process_time()
    result = call()
    return result, min(time.perf_counter() - wall, time.process_time() - processor)


def _key(
    bundle: Bundle, names: Sequence[str], stages: Sequence[StageName], options: EngineOptions
) -> str:
    """Return the key of a comparison, "" if it cannot be remembered."""
    libraries = {
        module: _version(module) for name in sorted(names) for module in BACKENDS[name].requires
    }
    return engine_memory.key_of(
        bundle,
        {
            "note": "pace",
            **libraries,
            "stages": " ".join(sorted(stages)),
            "threads": str(options.threads),
            "streams": str(options.streams),
        },
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # one of several distributions with this module
        return ""


def _read(note: str, names: Sequence[str]) -> dict[str, Costs] | None:
    """Return the costs of a note; None if it is none of these backends."""
    try:
        costs = {name: Costs(*map(float, values)) for name, values in json.loads(note).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None
    return costs if costs.keys() == set(names) else None
