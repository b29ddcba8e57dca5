"""Checks that a network or an engine computes in the precision that its manifest names."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from glesam_runtime.backends.tensorrt_api import Api, logger_of
from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import PrecisionName, StageName

_NETWORK_TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
"""Precisions by the names of the library's data types."""

_PRODUCT_LAYERS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")

_ENGINE_TYPES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "Int8", "fp8": "FP8"}
"""How the engine inspector spells each precision in "Format/Datatype"; its case varies."""


def network_precisions(definition: Any) -> Counter[str]:
    """Count a network's convolutions and matrix products by precision.

    In a graph with explicit quantization a product has the type that its inputs are dequantized to.
    The types before dequantization are therefore counted too.
    """
    found: Counter[str] = Counter()
    for index in range(definition.num_layers):
        layer = definition.get_layer(index)
        if layer.type.name in _PRODUCT_LAYERS:
            found[_precision_name(layer.get_output(0).dtype)] += 1
        elif layer.type.name == "DEQUANTIZE":
            found[_precision_name(layer.get_input(0).dtype)] += 1
    return found


def engine_precisions(api: Api, engine_file: Path) -> Counter[str]:
    """Count an engine's layer outputs by precision; needs the GPU that the engine is for.

    Raises:
        BackendError: the engine does not load here, or has no type information.
    """
    logger = logger_of(api)
    engine = api.trt.Runtime(logger).deserialize_cuda_engine(engine_file.read_bytes())
    if engine is None:
        raise BackendError(f"{engine_file}: cannot be loaded for inspection: {logger.take()}")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(api.trt.LayerInformationFormat.JSON)
    return layer_precisions(json.loads(text), str(engine_file))


def layer_precisions(information: dict[str, Any], where: str) -> Counter[str]:
    """Count the output types in the JSON of TensorRT's engine inspector.

    Raises:
        BackendError: the JSON lists layers without types.
    """
    found: Counter[str] = Counter()
    for layer in information.get("Layers", []):
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        for output in outputs:
            spelled = str(output.get("Format/Datatype", "")).upper().replace("HALF", "FP16")
            for precision, name in _ENGINE_TYPES.items():
                # No name contains another one: "BF16" does not contain "FP16".
                if name.upper() in spelled:
                    found[precision] += 1
                    break
    if not found:
        raise BackendError(f"{where}: the engine inspector reports no layer types")
    return found


def require_precision(found: Counter[str], wanted: PrecisionName, stage: StageName) -> None:
    """Reject a stage that does not compute in the wanted precision.

    Raises:
        BackendError: the wanted precision is absent, or an fp32 stage contains a lower one.
    """
    spelled = ", ".join(f"{count} {name}" for name, count in found.most_common()) or "none"
    if not found[wanted] or (wanted == "fp32" and len(found) > 1):
        raise BackendError(
            f"{stage}: {wanted} was requested, but its convolutions and matrix products are "
            f"{spelled}; export the bundle again"
        )


def _precision_name(dtype: Any) -> str:
    spelled = str(dtype.name)
    return _NETWORK_TYPES.get(spelled, spelled.lower())
