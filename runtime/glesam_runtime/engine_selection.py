"""Select the engine for a bundle: the fastest installed one within the bundle's accuracy limits.

The order is that of `backends.BACKENDS`, measured in docs/performance.md. Before an engine runs a
bundle for the first time on a machine, its results are compared with the bundle's golden file. The
result is kept in the user's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from glesam_runtime import engine_memory, engine_pace, golden
from glesam_runtime.backends import BACKENDS, ENGINE_BACKEND, installed
from glesam_runtime.backends.loading import is_compiled, load_engine, module_of
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.errors import BackendError
from glesam_runtime.expected_work import ExpectedWork
from glesam_runtime.manifest import STAGES, StageName
from glesam_runtime.verbosity import timed_detail

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle

_SMALL = 64 * 2**20
"""Size of graphs and weights, in bytes, below which the expected work orders the backends. The
start of a larger bundle is short compared with its first image (docs/performance.md)."""


@dataclass(frozen=True)
class SelectedEngine:
    """A loaded engine and why it was selected; `reason` is None if the user named the backend."""

    engine: Engine
    reason: str | None = None


def select_engine(
    bundle: Bundle,
    backend: str = "auto",
    device: str | None = None,
    stages: Sequence[StageName] = STAGES,
    options: EngineOptions | None = None,
    work: ExpectedWork | None = None,
    *,
    check_limits: bool = True,
) -> SelectedEngine:
    """Load a verified bundle's graphs into the named backend, or into the best one.

    Args:
        bundle: a bundle from `open_bundle`.
        backend: a name in `backends.BACKENDS`, or "auto". "auto" tries a GPU that ONNX Runtime can
            use, then OpenVINO, then ONNX Runtime on the CPU (the last two in reverse for a small
            bundle and little work), and takes the first whose results stay within the bundle's
            accuracy limits.
        device: "cpu", "cuda" or "cuda:N". With None, "auto" tries every device; a named backend
            uses its default.
        stages: the graphs to load.
        options: how the engine is to run. If it sets `precision`, no accuracy limits are checked.
        work: the expected work, which "auto" weighs against the start; None is one image with one
            prompt.
        check_limits: False takes the first engine that loads.

    Raises:
        BackendError: no backend, or not the named one, can run the bundle, or all of them exceed
            the accuracy limits.
        BundleError: the golden file cannot be used.
    """
    options, work = options or EngineOptions(), work or ExpectedWork()
    if backend != "auto":
        return SelectedEngine(load_engine(bundle, backend, device, stages, options))
    if is_compiled(bundle):
        return SelectedEngine(load_engine(bundle, ENGINE_BACKEND, device, stages, options))
    checked = check_limits and options.precision is None
    trial = _Trial(bundle, stages, options, work, checked)
    for name, where in _candidates(trial, device):
        engine = trial.load(name, where)
        if engine is not None:
            return SelectedEngine(engine, _reason(trial, engine))
    raise BackendError("; ".join(trial.skipped))


@dataclass
class _Trial:
    """The engines that were tried for a bundle."""

    bundle: Bundle
    stages: Sequence[StageName]
    options: EngineOptions
    work: ExpectedWork
    checked: bool
    """Whether an engine must stay within the bundle's accuracy limits."""
    skipped: list[str] = field(default_factory=list)
    """Why engines cannot be taken."""
    tried: dict[tuple[str, str], tuple[Engine | None, float]] = field(default_factory=dict)
    """By backend and device: the engine, None if it is skipped, and the seconds of loading it."""
    comparison: engine_pace.Comparison | None = None
    """What ordered the engines on the CPU, for a small bundle."""

    @property
    def may_measure(self) -> bool:
        """Return whether measured times may order the engines."""
        return self.work.measure and self.checked and {"encoder", "decoder"} <= set(self.stages)

    def load(self, name: str, where: str) -> Engine | None:
        """Load and check an engine, once; return None if it cannot be taken."""
        if (name, where) not in self.tried:
            self.tried[name, where] = self._load(name, where)
        return self.tried[name, where][0]

    def _load(self, name: str, where: str) -> tuple[Engine | None, float]:
        try:
            engine, seconds = engine_pace.timed(
                lambda: load_engine(self.bundle, name, where, self.stages, self.options)
            )
            failure = _failure(self, engine) if self.checked else None
        except BackendError as error:
            self.skipped.append(f"{name} on {where}: {error}")
            return None, 0.0
        if failure is None:
            return engine, seconds
        self.skipped.append(
            f"{name} on {where} exceeds the bundle's accuracy limits ({failure}); "
            f"--backend {name} runs it anyway"
        )
        return None, 0.0

    def ordered_on_cpu(self, names: Sequence[str]) -> list[str]:
        """Return the names of backends in the order in which to try them on the CPU."""
        if not is_small(self.bundle):
            return sorted(names, key=lambda name: BACKENDS[name].rank)
        if self.may_measure:
            self.comparison = engine_pace.known(self.bundle, names, self.stages, self.options)
        else:
            self.comparison = engine_pace.general(names)
        if self.may_measure and engine_pace.is_worth_measuring(self.comparison, self.work):
            found = {name: self.tried[name, "cpu"] for name in names if self.load(name, "cpu")}
            engines = {name: (engine, start) for name, (engine, start) in found.items() if engine}
            if len(engines) > 1:
                self.comparison = engine_pace.measure(
                    self.bundle, engines, self.stages, self.options
                )
        first = self.comparison.ordered(self.work)
        return [*first, *(name for name in names if name not in first)]


def _candidates(trial: _Trial, device: str | None) -> Iterator[tuple[str, str]]:
    """Yield pairs of backend name and device, the best first."""
    here = installed()
    backends = [backend for backend in BACKENDS.values() if not backend.compiled]
    with_gpu = [backend for backend in backends if "cuda" in backend.devices]
    if device is not None and device != "cpu":
        yield from ((backend.name, device) for backend in with_gpu)
        return
    for backend in with_gpu:
        if device is None and backend.name in here and module_of(backend).sees_gpu():
            yield backend.name, "cuda"
    on_cpu = [backend.name for backend in backends if backend.name in here]
    # With no backend installed, the error of the first in the table says what to install.
    for name in trial.ordered_on_cpu(on_cpu) or [backends[0].name]:
        yield name, "cpu"


def is_small(bundle: Bundle) -> bool:
    """Return whether the graphs are so small that the start counts beside the work."""
    stages = bundle.manifest.stages.values()
    files = [file for stage in stages for file in (stage.graph, stage.data) if file is not None]
    return sum(file.bytes for file in files) < _SMALL


def _failure(trial: _Trial, engine: Engine) -> str | None:
    """Return how an engine exceeds the bundle's accuracy limits, None if it does not.

    The golden file is run once for each bundle, CPU, engine and version of this program, which
    decides how the engine is set up; the cache keeps the result.
    """
    bundle = trial.bundle
    about = engine.describe()
    # A graph from the cache of --cache is judged again when its bytes change.
    if kept := getattr(engine, "kept", ""):
        about["kept"] = kept
    key = engine_memory.key_of(bundle, about)
    known = engine_memory.remembered() if key else {}
    if key not in known:
        if tuple(trial.stages) != STAGES:
            engine = load_engine(bundle, engine.name, engine.device, STAGES, trial.options)
        with timed_detail(f"comparing {engine.name} with the golden file"):
            known[key] = "; ".join(golden.check(bundle, engine).failures)
        if key:
            engine_memory.remember(known)
    return known[key] or None


def _reason(trial: _Trial, engine: Engine) -> str:
    ran = engine.describe()
    precision = f" in {ran['precision']}" if "precision" in ran else ""
    limits = ", within the bundle's accuracy limits" if trial.checked else ""
    best = "the fastest here"
    if trial.comparison is not None and len(trial.comparison.costs) > 1:
        decided = trial.comparison.describe(trial.work)
        best = f"the fastest here for {trial.work} with a small bundle ({decided})"
    reason = f"{ran['engine']} {ran['version']} on {ran['device']}{precision}: {best}"
    return "; ".join([f"{reason}{limits}", *(f"not {each}" for each in trial.skipped)])
