"""Traces a graph module to an ONNX file: named axes, nothing of this machine inside."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor

from glesam_calibration.graph_files import save_graph
from glesam_export.graphs import Graph
from glesam_export.simplify import simplify
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import Family, PrecisionName, StageName, TensorSpec

OPSETS: Mapping[PrecisionName, int] = {"fp32": 18, "fp16": 18, "bf16": 22}
"""By precision: the oldest that serves, for reach; Conv takes bfloat16 from opset 22 on."""

_TRACED_SIZES: Mapping[str, int] = {"N": 2, "B": 3, "P": 4}
"""Sizes of free axes while tracing: no two alike and none that torch.export would specialise."""


@torch.no_grad()
def export(
    graph: Graph,
    stage: StageName,
    precision: PrecisionName,
    image_size: int,
    batch: int | str,
    folder: Path,
    family: Family = "sam",
) -> tuple[Path, Path | None]:
    """Write `<stage>.onnx` and, past 1 GiB of weights, `<stage>.onnx.data` beside it.

    Args:
        graph: of any stage, typed by `precision`. It is used up: its weights are freed once they
            are written.
        stage: which; fixes names and shapes of inputs and outputs.
        precision: what it was typed to.
        image_size: S.
        batch: N of encoder and enhancer, or "dynamic".
        folder: where to write.
        family: whose interface the graph has.

    Returns:
        The graph's path and its data's, if there is any.
    """
    inputs, outputs = expected_interface(stage, image_size, batch, family)
    examples = tuple(_example(spec) for spec in inputs)
    with warnings.catch_warnings():
        # The exporter warns of its own internals; what matters is checked against the reference.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            examples,
            dynamo=True,
            opset_version=OPSETS[precision],
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            dynamic_shapes=tuple(_free_axes(spec) for spec in inputs),
            verbose=False,
            optimize=False,
        )
    assert program is not None
    model = program.model
    simplify(model)
    # Tracebacks with the paths of this machine; no engine reads them.
    ClearMetadataAndDocStringPass()(model)
    path = folder / f"{stage}.onnx"
    data = save_graph(model, path)
    _free(graph)
    return path, data


def _free(graph: Graph) -> None:
    """Give back the memory of a graph's weights.

    torch.export keeps what it traced reachable for as long as the process lives; for a U-Net that
    is 3.3 GB, under everything that comes after.
    """
    for tensor in (*graph.parameters(), *graph.buffers()):
        storage = tensor.untyped_storage()
        if storage.resizable():  # a mapped file's is not, and is the page cache's anyway
            storage.resize_(0)


def _example(spec: TensorSpec) -> Tensor:
    """An input of the right shape to trace with."""
    shape = [_TRACED_SIZES[axis] if isinstance(axis, str) else axis for axis in spec.shape]
    return torch.zeros(shape)


def _free_axes(spec: TensorSpec) -> dict[int, str]:
    """The axes of an input that are free at run time, by their letters."""
    return {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
