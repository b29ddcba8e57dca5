"""Finds the tensors of a stage at which half precision goes wrong, and measures by how much.

`glesam-export debug` runs one stage twice, once in float32 and once in half precision, and compares
every tensor. All tensors of a full-size graph do not fit into memory at once. They are therefore
read in groups, and each group takes one run of the whole graph on either side.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from glesam_calibration.attentions import HALF
from glesam_export import emulate
from glesam_export.attention.for_tensorrt import write_fusible
from glesam_export.engines.build_options import EngineBuildOptions, family_named
from glesam_export.engines.compile import make_config, parse
from glesam_export.engines.polygraphy_driver import drive_polygraphy
from glesam_runtime import chain, compare
from glesam_runtime.backends.cuda import Device
from glesam_runtime.backends.tensorrt_api import Api, import_family
from glesam_runtime.bundle import Bundle, load_golden, require_own_weights
from glesam_runtime.engine_libraries import import_onnxruntime
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.image import preprocess
from glesam_runtime.manifest import Stage, StageName
from glesam_runtime.timestep_levels import LEVEL, level_tensor

ROUNDED = "rounded"
"""The comparison that needs no GPU: the same graph with every half-precision result rounded."""

GROUP_BYTES = 1 << 30
"""Maximum size of the tensors that one run returns, on each side."""

Tensors = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class TensorError:
    """Describes the error of one tensor.

    Attributes:
        tensor: its name in the graph.
        op_type: the operation that computes it.
        relative_l2: infinite if the half-precision tensor is not finite.
        max_abs: the largest absolute difference.
        largest: the largest absolute value in float32. float16 ends at 65504.
    """

    tensor: str
    op_type: str
    relative_l2: float
    max_abs: float
    largest: float


class StageRunner(Protocol):
    """Runs a stage and returns any tensors of its graph."""

    def run(self, names: Sequence[str], inputs: Tensors) -> Tensors:
        """Return these tensors as float32; tensors that the runner cannot read are left out."""


def compare_stage(bundle: Bundle, stage: StageName, against: str) -> list[TensorError]:
    """Compare every tensor of a stage on the bundle's golden inputs.

    Args:
        bundle: a bundle of ONNX graphs.
        stage: the stage to run.
        against: ROUNDED, or an engine family. An engine is compiled for the GPU of this machine.

    Raises:
        BundleError: the bundle's weight files are hard links.
        InputError: the bundle holds engines, the family is unknown, or `against` is ROUNDED and
            the stage is fp32.
        BackendError: the engine library or a GPU is missing, or the build failed.
    """
    if bundle.manifest.target.engine != "onnx":
        raise InputError(f"{bundle.path}: holds engines; pass the ONNX bundle they came from")
    require_own_weights(bundle)
    spec, path = bundle.manifest.stages[stage], bundle.graph_path(stage)
    with tempfile.TemporaryDirectory() as folder:
        other: StageRunner
        if against == ROUNDED:
            if spec.precision == "fp32":
                raise InputError(
                    f"{bundle.path}: its {stage} is fp32, which rounds nothing; "
                    "pass --against tensorrt or tensorrt-rtx"
                )
            other = OnnxRunner(path, Path(folder), rounded=True)
        else:
            options = EngineBuildOptions(family_named(against, "--against"))
            api = import_family(options.family)
            try:
                Device()
            except BackendError as error:
                raise BackendError(
                    f"--against {against}: {error}; --against {ROUNDED} needs no GPU"
                ) from error
            other = EngineRunner(api, path, spec, options)
        exact = OnnxRunner(path, Path(folder), rounded=False)
        inputs = _golden_inputs(bundle, stage)
        return list(compare_tensors(ir.load(path).graph, exact, other, inputs))


def compare_tensors(
    graph: ir.Graph, reference: StageRunner, other: StageRunner, inputs: Tensors
) -> Iterator[TensorError]:
    """Compare every floating-point tensor of a graph, in the order of computation."""
    for group in _groups(graph):
        expected, found = reference.run(list(group), inputs), other.run(list(group), inputs)
        for name, op_type in group.items():
            if name not in found:
                continue  # an engine has fused it away
            yield TensorError(
                name,
                op_type,
                compare.relative_l2(found[name], expected[name]),
                compare.max_abs(found[name], expected[name]),
                float(np.abs(expected[name]).max(initial=0.0)),
            )


class OnnxRunner:
    """Runs a half-precision graph on ONNX Runtime.

    Args:
        graph: the ONNX file.
        folder: where the rewritten graph goes.
        rounded: whether every half-precision result is rounded. Weights are rounded in any case.
    """

    def __init__(self, graph: Path, folder: Path, *, rounded: bool) -> None:
        self._source, self._folder, self._rounded = graph, folder, rounded

    def run(self, names: Sequence[str], inputs: Tensors) -> Tensors:
        """Run the graph and return these tensors."""
        onnxruntime = import_onnxruntime()

        model = ir.load(self._source)
        by_name = {value.name: value for node in model.graph for value in node.outputs}
        wanted = [by_name[name] for name in names]
        rounded = emulate.to_float32(model.graph, rounded=self._rounded)
        model.graph.outputs.clear()
        model.graph.outputs.extend(rounded.get(value, value) for value in wanted)
        path = self._folder / f"{'rounded' if self._rounded else 'exact'}.onnx"
        ir.save(model, path, external_data=f"{path.name}.data")
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        given = {value.name: inputs[value.name] for value in session.get_inputs()}
        values = session.run(None, given)
        return {n: np.asarray(v, np.float32) for n, v in zip(names, values, strict=True)}


class EngineRunner:
    """Runs a graph as an engine on the GPU of this machine.

    An engine fuses tensors away unless they are outputs. Each group of tensors therefore needs an
    engine of its own.
    """

    def __init__(self, api: Api, graph: Path, spec: Stage, options: EngineBuildOptions) -> None:
        self._api, self._graph, self._spec, self._options = api, graph, spec, options

    def run(self, names: Sequence[str], inputs: Tensors) -> Tensors:
        """Compile and run the graph; return those of the tensors that the network has.

        Raises:
            BackendError: the build or the run failed.
        """
        with (
            tempfile.TemporaryDirectory() as folder,
            drive_polygraphy(self._api, f"{self._graph.name}: {len(names)} tensors"),
        ):
            from polygraphy.backend.trt import (
                EngineFromNetwork,
                ModifyNetworkOutputs,
                TrtRunner,
            )

            graph, _ = write_fusible(self._graph, Path(folder), self._spec.precision)
            network = parse(self._api, graph)
            known = set(_layer_outputs(network.definition))
            wanted = [name for name in names if name in known]
            if not wanted:
                return {}
            parts = network.builder, network.definition, network.parser
            marked = ModifyNetworkOutputs(parts, outputs=wanted)
            config = make_config(self._api, self._spec.inputs, self._options, None)
            with TrtRunner(EngineFromNetwork(marked, config)) as runner:
                feeds = {spec.name: inputs[spec.name] for spec in self._spec.inputs}
                found = runner.infer(feeds)
            return {name: np.asarray(found[name], np.float32) for name in wanted}


def error_table(errors: Sequence[TensorError], top: int) -> str:
    """Return a table of the `top` largest errors, in the order of computation.

    The first tensor that is not finite is always included.
    """
    lines = [
        f"{'tensor':<40} {'operation':<20} {'relative L2':>12} {'max abs':>10} {'largest':>10}"
    ]
    broken = next((error for error in errors if not math.isfinite(error.relative_l2)), None)
    worst = sorted(errors, key=lambda error: -error.relative_l2)[:top]
    shown = [error for error in errors if error in worst or error is broken]
    lines += [
        f"{e.tensor:<40.40} {e.op_type:<20.20} {e.relative_l2:>12.3g} {e.max_abs:>10.3g} "
        f"{e.largest:>10.3g}"
        for e in shown
    ]
    if broken is not None:
        lines.append(f"first not finite: {broken.tensor} ({broken.op_type})")
    lines.append(f"{len(shown)} of {len(errors)} tensors, in the order of computation")
    return "\n".join(lines)


def _golden_inputs(bundle: Bundle, stage: StageName) -> Tensors:
    """Return the inputs of a stage from the golden file."""
    golden = load_golden(bundle)
    if stage == "encoder":
        image = preprocess(golden["image"].astype(np.uint8), bundle.manifest.preprocessing)
        return {"image": image.tensor}
    tensors = {name: np.asarray(t, np.float32) for name, t in golden.items() if name != "image"}
    if stage == "decoder":
        tensors[chain.EMBEDDINGS] = tensors["enhanced_embeddings"]
    elif (level := level_tensor(bundle.manifest, None, 1)) is not None:
        tensors[LEVEL] = level
    return tensors


def _groups(graph: ir.Graph) -> Iterator[dict[str, str]]:
    """Yield groups of tensors of at most GROUP_BYTES; each maps tensor names to operations."""
    group: dict[str, str] = {}
    size = 0
    for node in graph:
        for value in node.outputs:
            if value.dtype not in (*HALF, ir.DataType.FLOAT) or node.op_type == "Constant":
                continue
            assert value.name is not None, "traced graphs name their values"
            need = 4 * int(np.prod([d if isinstance(d, int) else 16 for d in value.shape or ()]))
            if group and size + need > GROUP_BYTES:
                yield group
                group, size = {}, 0
            group[value.name] = node.op_type
            size += need
    if group:
        yield group


def _layer_outputs(definition: Any) -> list[str]:
    """Return the names of all layer outputs of a network."""
    layers = (definition.get_layer(index) for index in range(definition.num_layers))
    return [layer.get_output(i).name for layer in layers for i in range(layer.num_outputs)]
