"""Select the engine for a bundle: the fastest installed one within the bundle's accuracy limits.

The order is that of `backends.BACKENDS`, measured in docs/performance.md. Before an engine runs a
bundle for the first time on a machine, its results are compared with the bundle's golden file. The
result is kept in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import TYPE_CHECKING

import glesam_runtime
from glesam_runtime import golden
from glesam_runtime.backends import BACKENDS, ENGINE_BACKEND, Backend, installed
from glesam_runtime.backends.loading import is_compiled, load_engine, module_of
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.machine import cpu_name
from glesam_runtime.manifest import STAGES, StageName
from glesam_runtime.staging import staged_file
from glesam_runtime.verbosity import timed_detail

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle

_LARGEST_CACHE = 1 << 20
"""Bytes of checked.json, which has about 100 for each check."""
_SMALL = 64 * 2**20
"""Size of graphs and weights, in bytes, below which `small_rank` orders the backends. Nano's first
mask takes 0.8 s with ONNX Runtime and 1.5 s with OpenVINO; later images take 20 ms with both."""


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
    *,
    check_limits: bool = True,
) -> SelectedEngine:
    """Load a verified bundle's graphs into the named backend, or into the best one.

    Args:
        bundle: a bundle from `open_bundle`.
        backend: a name in `backends.BACKENDS`, or "auto". "auto" tries a GPU that ONNX Runtime can
            use, then OpenVINO, then ONNX Runtime on the CPU (the last two in reverse for small
            bundles), and takes the first whose results stay within the bundle's accuracy limits.
        device: "cpu", "cuda" or "cuda:N". With None, "auto" tries every device; a named backend
            uses its default.
        stages: the graphs to load.
        options: how the engine is to run. If it sets `precision`, no accuracy limits are checked.
        check_limits: False takes the first engine that loads.

    Raises:
        BackendError: no backend, or not the named one, can run the bundle, or all of them exceed
            the accuracy limits.
        BundleError: the golden file cannot be used.
    """
    options = options or EngineOptions()
    if backend != "auto":
        return SelectedEngine(load_engine(bundle, backend, device, stages, options))
    if is_compiled(bundle):
        return SelectedEngine(load_engine(bundle, ENGINE_BACKEND, device, stages, options))
    skipped: list[str] = []
    checked = check_limits and options.precision is None
    for name, where in _candidates(bundle, device):
        try:
            engine = load_engine(bundle, name, where, stages, options)
            failure = _failure(bundle, engine, stages, options) if checked else None
        except BackendError as error:
            skipped.append(f"{name} on {where}: {error}")
            continue
        if failure is None:
            return SelectedEngine(engine, _reason(bundle, engine, skipped, checked))
        skipped.append(
            f"{name} on {where} exceeds the bundle's accuracy limits ({failure}); "
            f"--backend {name} runs it anyway"
        )
    raise BackendError("; ".join(skipped))


def _candidates(bundle: Bundle, device: str | None) -> Iterator[tuple[str, str]]:
    """Yield pairs of backend name and device, the best first."""
    here, ranked = installed(), _ranked(bundle)
    with_gpu = [backend for backend in ranked if "cuda" in backend.devices]
    if device is not None and device != "cpu":
        yield from ((backend.name, device) for backend in with_gpu)
        return
    for backend in with_gpu:
        if device is None and backend.name in here and module_of(backend).sees_gpu():
            yield backend.name, "cuda"
    on_cpu = [backend.name for backend in ranked if backend.name in here]
    # With no backend installed, the error of the one that loads fastest says what to install.
    for name in on_cpu or [min(ranked, key=lambda backend: backend.small_rank).name]:
        yield name, "cpu"


def _ranked(bundle: Bundle) -> list[Backend]:
    """Return the backends for ONNX bundles in the order in which to try them."""
    small = is_small(bundle)
    backends = [backend for backend in BACKENDS.values() if not backend.compiled]
    return sorted(backends, key=lambda each: each.small_rank if small else each.rank)


def is_small(bundle: Bundle) -> bool:
    """Return whether the graphs are so small that the start-up time outweighs the run time."""
    stages = bundle.manifest.stages.values()
    files = [file for stage in stages for file in (stage.graph, stage.data) if file is not None]
    return sum(file.bytes for file in files) < _SMALL


def _failure(
    bundle: Bundle, engine: Engine, stages: Sequence[StageName], options: EngineOptions
) -> str | None:
    """Return how an engine exceeds the bundle's accuracy limits, None if it does not.

    The golden file is run once for each bundle, CPU, engine and version of this program, which
    decides how the engine is set up; the cache keeps the result.
    """
    key = _key(bundle, engine)
    known = _remembered() if key else {}
    if key not in known:
        if tuple(stages) != STAGES:
            engine = load_engine(bundle, engine.name, engine.device, STAGES, options)
        with timed_detail(f"comparing {engine.name} with the golden file"):
            known[key] = "; ".join(golden.check(bundle, engine).failures)
        if key:
            _remember(known)
    return known[key] or None


def _key(bundle: Bundle, engine: Engine) -> str:
    """Return the key of a check, "" if it cannot be remembered.

    A program that was packed without its metadata does not know its version.
    """
    try:
        program = glesam_runtime.__version__
    except PackageNotFoundError:
        return ""
    identity = {
        "program": program,
        "bundle": bundle.sha256,
        "cpu": cpu_name(),
        **engine.describe(),
    }
    # A graph from the cache of --cache is judged again when its bytes change.
    if kept := getattr(engine, "kept", ""):
        identity["kept"] = kept
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _reason(bundle: Bundle, engine: Engine, skipped: Sequence[str], checked: bool) -> str:
    ran = engine.describe()
    precision = f" in {ran['precision']}" if "precision" in ran else ""
    best = "the one that starts a small bundle soonest" if is_small(bundle) else "the fastest"
    limits = ", within the bundle's accuracy limits" if checked else ""
    reason = f"{ran['engine']} {ran['version']} on {ran['device']}{precision}: {best} here"
    return "; ".join([f"{reason}{limits}", *(f"not {each}" for each in skipped)])


def _remembered() -> dict[str, str]:
    """Return the results of earlier checks by key: the failures, "" for none."""
    path = _cache_file()
    try:
        if path is None or not path.is_file():  # opening a FIFO would wait for a writer
            return {}
        with path.open("rb") as file:
            known = json.loads(file.read(_LARGEST_CACHE))  # a longer one is no JSON then
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, str)}


def _remember(known: dict[str, str]) -> None:
    path = _cache_file()
    if path is None:
        return
    # If the cache cannot be written, the next start checks again.
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path) as partial:
            partial.write_text(json.dumps(known, indent=0))


def _cache_file() -> Path | None:
    """Return the file in the user's cache, by the XDG rules; None if the user has no home.

    Containers often run as a user that has no name, and without HOME.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():  # by the XDG rules such a path counts as none
        if os.environ.get("HOME") == "":  # pathlib takes it for the root folder
            return None
        try:
            base = Path.home() / ".cache"
        except RuntimeError:
            return None
    return base / "glesam" / "checked.json" if base.is_absolute() else None
