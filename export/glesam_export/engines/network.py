"""An ONNX graph as a strongly typed network, and which precision is really in it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from glesam_export.engines import fusible
from glesam_export.engines.polygraph import driving
from glesam_runtime.backends.tensorrt_api import Api
from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import PrecisionName, StageName

_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
_PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")


@dataclass(frozen=True)
class Network:
    """A parsed graph.

    Attributes:
        builder: the library's, that made it.
        definition: INetworkDefinition; refers to weights that `parser` keeps.
        parser: has to live as long.
    """

    builder: Any
    definition: Any
    parser: Any


def rewrite(source: Path, folder: Path, precision: PrecisionName) -> tuple[Path, tuple[str, ...]]:
    """Write a graph as TensorRT likes it.

    Args:
        source: an ONNX graph.
        folder: for the rewritten one, and its weights beside it.
        precision: of the graph; in fp32 there are no fused kernels to prepare for.

    Returns:
        The graph to parse, `source` itself where nothing was to be done, and what was changed.
    """
    if precision == "fp32":
        return source, ()
    model = ir.load(source)
    changes = fusible.make_fusible(model.graph)
    if not changes:
        return source, ()
    path = folder / source.name
    RemoveUnusedNodesPass()(model)
    ir.save(model, path, external_data=f"{source.name}.data")
    return path, changes


def parse(api: Api, graph: Path) -> Network:
    """Parse a graph into a strongly typed network.

    Raises:
        BackendError: the parser refuses it, in its own words.
    """
    with driving(api, f"{graph}: parsing"):
        from polygraphy.backend.trt import network_from_onnx_path

        strongly_typed = bool(api.creation_flags)
        builder, definition, parser = network_from_onnx_path(
            str(graph), strongly_typed=strongly_typed
        )
    return Network(builder, definition, parser)


def precisions(definition: Any) -> Counter[str]:
    """How many convolutions and matrix products a network has by precision.

    With explicit quantization the products are typed as what their inputs are dequantized to; the
    precisions of what is dequantized are counted too.
    """
    found: Counter[str] = Counter()
    for index in range(definition.num_layers):
        layer = definition.get_layer(index)
        if layer.type.name in _PRODUCTS:
            found[_name(layer.get_output(0).dtype)] += 1
        elif layer.type.name == "DEQUANTIZE":
            found[_name(layer.get_input(0).dtype)] += 1
    return found


def require_precision(found: Counter[str], wanted: PrecisionName, stage: StageName) -> None:
    """Refuse what is not what it is called.

    Raises:
        BackendError: the precision asked for is absent, or an fp32 graph has a lower one.
    """
    spelled = ", ".join(f"{count} {name}" for name, count in found.most_common()) or "none"
    if not found[wanted] or (wanted == "fp32" and len(found) > 1):
        raise BackendError(
            f"{stage}: {wanted} was asked for, its convolutions and matrix products are {spelled}; "
            "export the bundle again"
        )


def _name(dtype: Any) -> str:
    spelled = str(dtype.name)
    return _NAMES.get(spelled, spelled.lower())
