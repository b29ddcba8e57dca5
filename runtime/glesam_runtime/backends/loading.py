"""Loads a bundle's graphs into an engine of a backend."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, cast

from glesam_runtime.backends import BACKENDS, Backend
from glesam_runtime.backends.one_stage import load_one_stage
from glesam_runtime.engine_options import EngineOptions, changed_options
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.image_index import OneImageEngine, takes_image_index
from glesam_runtime.machine import cores
from glesam_runtime.manifest import STAGES, StageName
from glesam_runtime.option_groups import flag
from glesam_runtime.verbosity import print_detail

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle


_THREADS_PER_CORE = 8
"""Threads of an engine wait for each other by spinning: with 32 per core, nano takes 15 times as
long as with one, and with 500 it does not end in a minute."""


class BackendModule(Protocol):
    """The interface of a backend's module. One that runs on "cuda" also offers `sees_gpu`."""

    OPTIONS: frozenset[str]
    """Names of the `EngineOptions` that it supports."""

    def load(
        self,
        bundle: Bundle,
        device: str | None,
        stages: Sequence[StageName],
        options: EngineOptions,
    ) -> Engine:
        """Load the graphs of `stages`."""

    def sees_gpu(self) -> bool:
        """Return whether the installed library can use a GPU of this machine."""


def module_of(backend: Backend) -> BackendModule:
    """Import the module that implements a backend, and return it."""
    return cast("BackendModule", importlib.import_module(f"glesam_runtime.backends.{backend.name}"))


def load_engine(
    bundle: Bundle,
    backend: str,
    device: str | None = None,
    stages: Sequence[StageName] | None = None,
    options: EngineOptions | None = None,
) -> Engine:
    """Load a verified bundle's graphs into an engine.

    Args:
        bundle: a bundle from `open_bundle`.
        backend: a name in `BACKENDS`; `engine_selection.select_engine` also accepts "auto".
        device: "cpu", "cuda" or "cuda:N"; None is the backend's default: the first GPU for compiled
            engines, the CPU for ONNX graphs.
        stages: the graphs to load; None loads all of them.
        options: how the engine is to run.

    Raises:
        BackendError: the backend is unknown or not installed, does not run such a bundle, does not
            support an option or the device, or refuses a graph.
        InputError: more than 8 threads per core are asked for.
    """
    if backend not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise BackendError(f"backend {backend!r} is not known; known are {known}")
    if is_compiled(bundle) and not BACKENDS[backend].compiled:
        raise BackendError(
            f"{bundle.path}: holds {bundle.manifest.target.engine} engines, which {backend} cannot "
            f"run; leave out --backend, or give the ONNX bundle that they were compiled from"
        )
    options = options or EngineOptions()
    module = module_of(BACKENDS[backend])
    _check_options(backend, module.OPTIONS, options)
    _check_threads(options.threads)
    names = STAGES if stages is None else stages
    start = time.perf_counter()
    engine: Engine
    if options.low_memory:
        engine = load_one_stage(names, lambda stage: module.load(bundle, device, [stage], options))
    else:
        engine = module.load(bundle, device, names, options)
    if takes_image_index(bundle.manifest) and "decoder" in names:
        engine = OneImageEngine(engine)
    seconds = time.perf_counter() - start
    what = ", ".join(f"{key} {value}" for key, value in engine.describe().items())
    cache = "no cache" if options.cache is None else f"cache {options.cache}"
    loaded = names[-1] if options.low_memory else ", ".join(names)
    print_detail(f"loaded {loaded} in {seconds:.2f} s: {what}; {cache}")
    return engine


def is_compiled(bundle: Bundle) -> bool:
    """Return whether a bundle holds compiled engines instead of ONNX graphs."""
    return bundle.manifest.target.engine != "onnx"


def _check_options(name: str, supported: frozenset[str], options: EngineOptions) -> None:
    """Refuse options that a backend does not support, and name the backends that do."""
    for option in changed_options(options):
        if option not in supported:
            able = [other for other in BACKENDS.values() if option in module_of(other).OPTIONS]
            named = [
                each.name
                if each.compiled == BACKENDS[name].compiled
                else f"{each.name} (for {'compiled' if each.compiled else 'ONNX'} bundles)"
                for each in able
            ]
            raise BackendError(
                f"{name} does not support {flag(option)}; leave it out, or choose a backend that "
                f"supports it: {', '.join(named)}"
            )


def _check_threads(threads: int | None) -> None:
    """Refuse a number of threads that makes the engine slower beyond use."""
    usable = cores()
    if threads is not None and threads > _THREADS_PER_CORE * usable:
        raise InputError(
            f"{flag('threads')} {threads}: more than {_THREADS_PER_CORE} per core make the engine "
            f"many times slower, and this process has {usable}; leave it out, or give {usable}"
        )
