"""Run graphs with OpenVINO on the CPU, in their own precision unless the user sets another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.backends.base import FoundTensor, check_interface
from glesam_runtime.backends.graph_cache import kept_graph, opened_cache
from glesam_runtime.backends.mapped_file import pages_given_back
from glesam_runtime.bundle import remedy_for_links
from glesam_runtime.engine_libraries import import_openvino, openvino_core
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.machine import adds_bytes_exactly
from glesam_runtime.manifest import STAGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Value
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import EngineOptions
    from glesam_runtime.manifest import StageName

OPTIONS = frozenset({"precision", "threads", "streams", "cache", "low_memory"})

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
"""OpenVINO's name of each precision."""
_FLOATS = frozenset(_HINTS.values())

_FIXED = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
"""Without it OpenVINO also quantizes the inputs of layers whose weights alone are quantized. Layers
that the graph quantizes stay quantized."""

_BYTES_AS_FLOATS = {"LP_TRANSFORMS_MODE": "NO"}
"""Computes quantized graphs in float32 between their roundings."""


@dataclass(frozen=True)
class OpenVinoEngine:
    """The compiled graphs of one bundle, with an inference request for each."""

    graphs: Mapping[StageName, Any]
    requests: Mapping[StageName, Any]
    version: str
    precision: str
    kept: str = ""
    """The hashes of what was loaded from a cache; "" if nothing was."""
    name: str = "openvino"
    device: str = "cpu"

    def describe(self) -> dict[str, str]:
        """Return engine, version, provider, device and the precision that it computes in."""
        return {
            "engine": self.name,
            "version": self.version,
            "provider": "CPU",
            "device": self.device,
            "precision": self.precision,
        }

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph.

        Raises:
            BackendError: the stage is not loaded, or OpenVINO failed.
        """
        if stage not in self.requests:
            raise BackendError(f"the {stage} was not loaded")
        request = self.requests[stage]
        given = {
            name: np.ascontiguousarray(self.to_host(value), dtype=np.float32)
            for name, value in inputs.items()
        }
        try:
            # Outputs are copied: the request overwrites its own at the next call.
            results = request.infer(given, share_inputs=True, share_outputs=False)
        except Exception as error:  # OpenVINO's exceptions have no common base class
            raise BackendError(f"openvino failed in the {stage}: {_brief(error)}") from error
        return {port.any_name: array for port, array in results.items()}

    def to_host(self, value: Value) -> NDArray[np.float32]:
        """Return a tensor's values as a float32 array on the host.

        Raises:
            BackendError: the tensor belongs to another engine.
        """
        if isinstance(value, np.ndarray):
            return value
        raise BackendError(f"a tensor of another engine: {type(value).__name__}")

    def share(self) -> OpenVinoEngine:
        """Return an engine on the same graphs with inference requests of its own."""
        return replace(self, requests=_requests(self.graphs))


def load(
    bundle: Bundle, device: str | None, stages: Sequence[StageName], options: EngineOptions
) -> OpenVinoEngine:
    """Compile graphs, and check that they have the manifest's interface.

    Raises:
        BackendError: openvino is missing, the device is not the CPU, the CPU lacks the precision,
            or OpenVINO refuses a graph.
        InputError: the cache folder cannot be written, or other users may write to it.
    """
    try:
        ov, core = import_openvino(), openvino_core()
    except ImportError as error:
        raise BackendError(
            f"openvino cannot be imported ({error}); pip install 'glesam-runtime[openvino]'"
        ) from error
    if device not in (None, "cpu"):
        raise BackendError(
            f"device {device!r}: the openvino backend runs on cpu; for a GPU use onnxruntime"
        )
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    # Stages that are loaded one by one compute in the precision of all of them together.
    precision = options.precision or _precision_of(
        bundle, STAGES if options.low_memory else stages, able
    )
    graphs: dict[StageName, Any] = {}
    hashes = []
    for stage in stages:
        path = bundle.graph_path(stage)
        properties = properties_of(options, precision)
        try:
            with pages_given_back(_mapped_weights(bundle, stage)):
                compiled, kept = _compile(core, bundle, stage, properties, options.cache)
        except InputError:
            raise  # the cache cannot be used, and the error says so
        except Exception as error:  # OpenVINO's exceptions have no common base class
            remedy = remedy_for_links(bundle, stage)
            raise BackendError(f"{path}: openvino cannot load it: {_brief(error)}{remedy}") from (
                error
            )
        _check_precision(compiled, precision)
        spec = bundle.manifest.stages[stage]
        check_interface(path, "inputs", [_found(port) for port in compiled.inputs], spec.inputs)
        check_interface(path, "outputs", [_found(port) for port in compiled.outputs], spec.outputs)
        graphs[stage] = compiled
        hashes.append(kept)
    version = ov.__version__.partition("-")[0]
    loaded = " ".join(filter(None, hashes))
    return OpenVinoEngine(graphs, _requests(graphs), version, precision, loaded)


def properties_of(options: EngineOptions, precision: str) -> dict[str, Any]:
    """Return OpenVINO's properties for compiling and running a graph, without the cache folder.

    Raises:
        BackendError: OpenVINO does not have the precision.
    """
    if precision not in _HINTS:
        raise BackendError(f"precision {precision!r}: openvino has {', '.join(_HINTS)}")
    properties: dict[str, Any] = {
        **_FIXED,
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY" if options.streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": str(options.streams),
    }
    if not adds_bytes_exactly():
        # Without it the error of nano's int8 enhancer is three times that of its quantization
        # (docs/adr/0013).
        properties |= _BYTES_AS_FLOATS
    if options.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = str(options.threads)
    return properties


def without_casts(model: Any) -> None:
    """Make a half-precision model float32 throughout, in place; its weights stay in half precision.

    A graph typed in half precision has float32 islands, with casts on either side. When OpenVINO
    computes in bfloat16 it does so in the islands too (its kernels accumulate in float32), and the
    casts only keep attention from being fused: ViT-B's encoder takes 1.49 s with them and 1.29 s
    without (docs/performance.md). When it computes in float32, the casts round for no reason.

    Args:
        model: openvino.Model of a graph typed float16 or bfloat16.
    """
    ops = import_openvino().opset13

    for node in model.get_ordered_ops():
        output = node.output(0) if node.get_output_size() else None
        if output is None or not _is_float(output):
            continue
        kind = node.get_type_name()
        if kind == "Constant" and output.get_element_type().get_type_name() != "f32":
            readers = list(output.get_target_inputs())
            weight = ops.convert(node, "f32")
            # OpenVINO's mark of a compressed weight: it is not converted at compile time.
            weight.get_rt_info()["decompression_0"] = ""
            _redirect(readers, weight.output(0))
        elif kind == "Convert" and _is_float(node.input_value(0)):
            source = node.input_value(0)
            if source.get_node().get_type_name() != "Constant":
                readers = output.get_target_inputs()
                if any(reader.get_node().get_type_name() == "Result" for reader in readers):
                    source.get_tensor().set_names(output.get_names())  # the new output
                _redirect(readers, source)
    model.validate_nodes_and_infer_types()


def _precision_of(bundle: Bundle, stages: Sequence[StageName], able: Sequence[str]) -> str:
    """Return the default precision: bfloat16 if graphs are typed in it and the CPU has it.

    By its own default OpenVINO computes float32 graphs in bfloat16 too, which exceeds the bundle's
    accuracy limits. Half precision is no faster than float32 on any CPU measured, and less exact.
    """
    typed = {bundle.manifest.stages[stage].precision for stage in stages}
    return "bf16" if "bf16" in typed and "BF16" in able else "fp32"


def _read(core: Any, bundle: Bundle, stage: StageName) -> Any:
    """Return a graph's model, or its file if nothing is to be changed in it."""
    path = bundle.graph_path(stage)
    if bundle.manifest.stages[stage].precision not in ("fp16", "bf16"):
        return path
    model = core.read_model(path)
    without_casts(model)
    return model


def _mapped_weights(bundle: Bundle, stage: StageName) -> Path | None:
    """Return the file of a graph's external weights, which OpenVINO maps; None if it has none."""
    data = bundle.manifest.stages[stage].data
    return None if data is None else bundle.path / data.file


def _compile(
    core: Any, bundle: Bundle, stage: StageName, properties: Mapping[str, str], cache: Path | None
) -> tuple[Any, str]:
    """Compile a graph, or load it from the cache.

    OpenVINO keeps a compiled graph in a file (blob) in its CACHE_DIR, which it names by the path of
    the graph. So a bundle that was moved gets another blob in the same folder.

    Returns:
        The compiled graph, and the hash of what was loaded from the cache ("" without a cache).
    """
    if cache is None:
        return core.compile_model(_read(core, bundle, stage), "CPU", dict(properties)), ""
    version = import_openvino().__version__
    made_of = {
        "graph": bundle.stage_sha256(stage),
        "engine": f"openvino {version}",
        "options": sorted(properties.items()),
    }
    kept = kept_graph(cache, f"openvino-{stage}", made_of)
    caching = {**properties, "CACHE_DIR": str(kept.folder)}
    with opened_cache(cache):
        kept.discard_unless_intact()
        try:
            kept.folder.mkdir(mode=0o755, exist_ok=True)
            compiled = core.compile_model(_read(core, bundle, stage), "CPU", caching)
            if not kept.is_recorded():
                kept.write_record()
                # What runs, and what is compared with the golden file, is what later starts load.
                del compiled
                compiled = core.compile_model(_read(core, bundle, stage), "CPU", caching)
        except InputError:
            raise
        except Exception as error:  # OpenVINO's exceptions have no common base class
            # The graph's own error comes first, if it has one.
            core.compile_model(_read(core, bundle, stage), "CPU", dict(properties))
            raise InputError(
                f"{kept.folder}: openvino cannot use this cache ({_brief(error)}); delete it, or "
                "leave out --cache"
            ) from error
        return compiled, kept.sha256()


def _check_precision(compiled: Any, precision: str) -> None:
    """Refuse a precision that OpenVINO silently replaces by float32."""
    computed = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if computed != _HINTS[precision]:
        raise BackendError(
            f"precision {precision!r}: this CPU does not have it, openvino would compute in "
            f"{computed}; leave out --precision"
        )


def _requests(graphs: Mapping[StageName, Any]) -> dict[StageName, Any]:
    return {stage: graph.create_infer_request() for stage, graph in graphs.items()}


def _found(port: Any) -> FoundTensor:
    """Describe an input or output of a compiled graph."""
    shape = tuple(None if axis.is_dynamic else axis.get_length() for axis in port.partial_shape)
    dtype = port.element_type.get_type_name()
    return FoundTensor(port.any_name, dtype, dtype == "f32", shape)


def _redirect(readers: Iterable[Any], source: Any) -> None:
    """Connect inputs to another source; the source keeps its names."""
    for reader in list(readers):
        reader.replace_source_output(source)


def _is_float(output: Any) -> bool:
    return output.get_element_type().get_type_name() in _FLOATS


def _brief(error: Exception) -> str:
    """Return the line of OpenVINO's message that gives the reason, without source locations."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    places = "Exception from", "Check '"
    reasons = [line for line in lines if not line.startswith(places) and line[-1] != ":"]
    return (reasons or lines or [type(error).__name__])[0]
