"""How ONNX Runtime is set, in one place, and its optimised graphs on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from glesam_runtime.errors import InputError
from glesam_runtime.machine import adds_bytes_exactly, cpu_name
from glesam_runtime.staging import staged_folder

if TYPE_CHECKING:
    from pathlib import Path

    from glesam_runtime.backends.base import EngineOptions
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.manifest import StageName

_QUIET = 3
"""Errors only: what matters reaches the user as an exception."""
_FLOAT32_ACTIVATIONS = ("session.qdq_matmulnbits_accuracy_level", "1")
"""Where weights alone are quantized, ONNX Runtime would quantize what flows in by itself."""
_BYTES_AS_FLOATS = ("session.disable_quant_qdq", "1")
"""Quantized graphs are computed in float32 between their roundings."""
_OPTIMIZED = "graph.onnx"
_BESIDE_FROM = 1024
"""Bytes from which a weight of a cached graph lies in the file beside it, which is mapped."""


def session_options(options: EngineOptions) -> Any:
    """What ONNX Runtime is told of how to optimise and run a graph; all of it but the provider."""
    import onnxruntime as ort

    made = ort.SessionOptions()
    made.log_severity_level = _QUIET
    made.add_session_config_entry(*_FLOAT32_ACTIVATIONS)
    if not adds_bytes_exactly():
        # Exact, and no slower there (docs/adr/0013).
        made.add_session_config_entry(*_BYTES_AS_FLOATS)
    # Memory planned ahead is a third of the peak of ViT-B's encoder, and saves no time
    # (docs/performance.md).
    made.enable_mem_pattern = False
    if options.threads is not None:
        made.intra_op_num_threads = options.threads
    return made


def open_session(
    bundle: Bundle, stage: StageName, options: EngineOptions, providers: Sequence[Any]
) -> Any:
    """A session on a graph, or on what optimising it once gave."""
    import onnxruntime as ort

    path, made = bundle.graph_path(stage), session_options(options)
    if options.cache is None:
        return ort.InferenceSession(str(path), made, providers=providers)
    # Optimised for this CPU, this provider and this version: no other may find it.
    made_of = (bundle.stage_sha256(stage), cpu_name(), providers, ort.__version__)
    key = hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]
    kept = options.cache / f"onnxruntime-{stage}-{key}"
    if not kept.is_dir():
        try:
            with staged_folder(kept) as folder:
                _write_optimized(path, folder, options, providers)
        except InputError:
            if not kept.is_dir():  # else another process has just put it there
                raise
    made.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(str(kept / _OPTIMIZED), made, providers=providers)


def _write_optimized(
    path: Path, folder: Path, options: EngineOptions, providers: Sequence[Any]
) -> None:
    import onnxruntime as ort

    writing = session_options(options)
    writing.optimized_model_filepath = str(folder / _OPTIMIZED)
    prefix = "session.optimized_model_external_initializers"
    writing.add_session_config_entry(f"{prefix}_file_name", f"{_OPTIMIZED}.data")
    writing.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(_BESIDE_FROM))
    ort.InferenceSession(str(path), writing, providers=providers)
