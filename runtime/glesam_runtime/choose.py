"""Which engine runs a bundle here: the fastest that is installed and keeps the bundle's gates.

The order is that of docs/performance.md. Before an engine runs a bundle for the first time on a
machine it is held against the golden file; what came of it is remembered in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime import golden
from glesam_runtime.backends import ENGINE_BACKEND, installed, is_compiled, load_engine
from glesam_runtime.backends.base import EngineOptions
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.machine import cpu_name
from glesam_runtime.manifest import STAGES, StageName
from glesam_runtime.staging import staged_file

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle

_SMALL = 64 * 2**20
"""Bytes of graphs and weights below which the engine that loads sooner is taken: nano's first mask
is there after 0.8 s with ONNX Runtime and 1.5 s with OpenVINO, an image takes either some 20 ms."""


@dataclass(frozen=True)
class Choice:
    """An engine that is loaded, and why it is this one; None where the user named it."""

    engine: Engine
    reason: str | None = None


def choose_engine(
    bundle: Bundle,
    backend: str = "auto",
    device: str | None = None,
    stages: Sequence[StageName] = STAGES,
    options: EngineOptions | None = None,
    *,
    keep_gates: bool = True,
) -> Choice:
    """Load a verified bundle's graphs into the engine asked for, or into the best one.

    Args:
        bundle: from `open_bundle`.
        backend: a name of `backends.BACKENDS`, or "auto": on a GPU that ONNX Runtime can use, else
            OpenVINO, else ONNX Runtime on the CPU (small bundles the other way round), the first
            whose results lie inside the gates.
        device: "cpu", "cuda", "cuda:N"; None is any for "auto", else the backend's default.
        stages: which graphs to load.
        options: how to run them. A precision asked for is not held against the gates.
        keep_gates: False takes the first that loads.

    Raises:
        BackendError: no engine, or not the one named, can run it; or none keeps the gates.
        BundleError: the golden file cannot be used.
    """
    options = options or EngineOptions()
    if backend != "auto":
        return Choice(load_engine(bundle, backend, device, stages, options))
    if is_compiled(bundle):
        return Choice(load_engine(bundle, ENGINE_BACKEND, device, stages, options))
    passed_over: list[str] = []
    judged = keep_gates and options.precision is None
    for name, where in _candidates(bundle, device):
        try:
            engine = load_engine(bundle, name, where, stages, options)
            failure = _failure(bundle, engine, stages, options) if judged else None
        except BackendError as error:
            passed_over.append(f"{name} on {where}: {error}")
            continue
        if failure is None:
            return Choice(engine, _reason(bundle, engine, passed_over, judged))
        passed_over.append(
            f"{name} on {where} lies outside the bundle's gates ({failure}); "
            f"--backend {name} runs it all the same"
        )
    raise BackendError("; ".join(passed_over))


def _candidates(bundle: Bundle, device: str | None) -> Iterator[tuple[str, str]]:
    """Backend and device, the best first."""
    here = installed()
    if device is not None and device != "cpu":
        yield "onnxruntime", device
        return
    if device is None and "onnxruntime" in here and _has_gpu():
        yield "onnxruntime", "cuda"
    on_cpu = [name for name in ("openvino", "onnxruntime") if name in here]
    if _is_small(bundle):
        on_cpu.reverse()
    for name in on_cpu or ["onnxruntime"]:  # of none, its error says what to install
        yield name, "cpu"


def _is_small(bundle: Bundle) -> bool:
    """Whether compiling its graphs takes longer than is ever won back on an image."""
    stages = bundle.manifest.stages.values()
    files = [file for stage in stages for file in (stage.graph, stage.data) if file is not None]
    return sum(file.bytes for file in files) < _SMALL


def _has_gpu() -> bool:
    """Whether the ONNX Runtime that is installed was built for CUDA, and a driver is here."""
    if not Path("/dev/nvidiactl").exists() and sys.platform != "win32":
        return False
    import onnxruntime as ort

    return "CUDAExecutionProvider" in ort.get_available_providers()


def _failure(
    bundle: Bundle, engine: Engine, stages: Sequence[StageName], options: EngineOptions
) -> str | None:
    """How an engine's results lie outside the bundle's gates; asked of the golden file once."""
    identity = {"bundle": bundle.sha256, "cpu": cpu_name(), **engine.describe()}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    known = _remembered()
    if key not in known:
        if tuple(stages) != STAGES:
            engine = load_engine(bundle, engine.name, engine.device, STAGES, options)
        known[key] = "; ".join(golden.check(bundle, engine).failures)
        _remember(known)
    return known[key] or None


def _reason(bundle: Bundle, engine: Engine, passed_over: Sequence[str], judged: bool) -> str:
    ran = engine.describe()
    precision = f" in {ran['precision']}" if "precision" in ran else ""
    best = "the soonest to start a small bundle" if _is_small(bundle) else "the fastest"
    gates = ", inside the bundle's gates" if judged else ""
    reason = f"{ran['engine']} {ran['version']} on {ran['device']}{precision}: {best} here"
    return "; ".join([f"{reason}{gates}", *(f"not {each}" for each in passed_over)])


def _remembered() -> dict[str, str]:
    """What came of earlier checks: failures by key, "" where there were none."""
    try:
        known = json.loads(_memory().read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _remember(known: dict[str, str]) -> None:
    path = _memory()
    # Where nothing can be written the next start checks again.
    with suppress(OSError, InputError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged_file(path) as partial:
            partial.write_text(json.dumps(known, indent=0))


def _memory() -> Path:
    """In the user's cache, by the rules of XDG."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "glesam" / "checked.json"
