"""Traces a graph module to an ONNX file.

The file has named dynamic axes, and no paths or names of the machine that wrote it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch import Tensor

from glesam_calibration.graph_files import save_graph
from glesam_export.attention.nodes import write_attention_nodes
from glesam_export.graphs import Graph
from glesam_export.simplify import simplify
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import Family, PrecisionName, StageName, TensorSpec

OPSETS: Mapping[PrecisionName, int] = {"fp32": 18, "fp16": 18, "bf16": 22}
"""The oldest opset that supports each precision; older opsets run on more engines.

Conv supports bfloat16 from opset 22 on.
"""

_TRACED_SIZES: Mapping[str, int] = {"N": 2, "B": 3, "P": 4, "I": 5}
"""Sizes of the dynamic axes while tracing.

All differ, and torch.export specialises none of them.
"""


@torch.no_grad()
def export(
    graph: Graph,
    stage: StageName,
    precision: PrecisionName,
    image_size: int,
    batch: int | str,
    folder: Path,
    family: Family = "sam",
    image_index: bool = False,
    levels: bool = False,
    attention_nodes: bool = False,
) -> tuple[Path, Path | None]:
    """Write `<stage>.onnx`, and `<stage>.onnx.data` beside it if the weights exceed 1 GiB.

    Args:
        graph: the stage's graph, typed by `precision.apply`. It cannot be used afterwards: its
            weights are freed as soon as they are written.
        stage: determines the names and shapes of inputs and outputs.
        precision: the precision that the graph was typed to.
        image_size: S, in pixels.
        batch: N of encoder and enhancer, or "dynamic".
        folder: where the files go.
        family: the model family, which determines the stage's interface.
        image_index: whether the decoder takes prompts of several images.
        levels: whether the enhancer takes the level of each image's timestep.
        attention_nodes: write each attention as one Attention node. This needs opset 23.

    Returns:
        The path of the graph, and the path of its .data file or None.
    """
    inputs, outputs = expected_interface(stage, image_size, batch, family, image_index, levels)
    examples = tuple(_example(spec) for spec in inputs)
    axes = tuple(_dynamic_axes(spec) for spec in inputs)
    with warnings.catch_warnings():
        # The exporter warns about its own internals; verification checks the result.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            graph.eval(),
            examples,
            dynamo=True,
            opset_version=OPSETS[precision],
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            dynamic_shapes=(axes,) if graph.variadic else axes,
            verbose=False,
            optimize=False,
        )
    assert program is not None
    model = program.model
    simplify(model)
    if attention_nodes:
        write_attention_nodes(model)
    # Removes tracebacks, which contain paths of this machine and which no engine reads.
    ClearMetadataAndDocStringPass()(model)
    path = folder / f"{stage}.onnx"
    data = save_graph(model, path)
    _free(graph)
    return path, data


def _free(graph: Graph) -> None:
    """Free the memory of a graph's weights.

    torch.export keeps references to the traced weights until the process ends. For a U-Net that is
    3.3 GB, on top of everything that runs later.
    """
    for tensor in (*graph.parameters(), *graph.buffers()):
        storage = tensor.untyped_storage()
        if storage.resizable():  # that of a memory-mapped file is not, and uses only page cache
            storage.resize_(0)


def _example(spec: TensorSpec) -> Tensor:
    """Return an input to trace with: zeros of the right shape."""
    shape = [_TRACED_SIZES[axis] if isinstance(axis, str) else axis for axis in spec.shape]
    return torch.zeros(shape)


def _dynamic_axes(spec: TensorSpec) -> dict[int, str]:
    """Return the letters of an input's dynamic axes, by index."""
    return {i: axis for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
