"""What is in an engine, asked of the engine: needs the GPU that it is for."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from glesam_runtime.backends.tensorrt_api import Api, logger_of
from glesam_runtime.errors import BackendError

_FORMATS = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "Int8", "fp8": "FP8"}
"""By precision: how the inspector's "Format/Datatype" spells it, in whatever case."""


def inspected_precisions(api: Api, engine_file: Path) -> Counter[str]:
    """How many layers of an engine put out each precision, as its inspector says.

    Raises:
        BackendError: the engine does not load here, or tells nothing of its layers.
    """
    logger = logger_of(api)
    engine = api.trt.Runtime(logger).deserialize_cuda_engine(engine_file.read_bytes())
    if engine is None:
        raise BackendError(f"{engine_file}: cannot be loaded to inspect it: {logger.take()}")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(api.trt.LayerInformationFormat.JSON)
    return layer_precisions(json.loads(text), str(engine_file))


def layer_precisions(information: dict[str, Any], where: str) -> Counter[str]:
    """Count the output types in an inspector's JSON.

    Raises:
        BackendError: it names layers without their types.
    """
    found: Counter[str] = Counter()
    for layer in information.get("Layers", []):
        outputs = layer.get("Outputs", []) if isinstance(layer, dict) else []
        for output in outputs:
            spelled = str(output.get("Format/Datatype", "")).upper().replace("HALF", "FP16")
            for precision, name in _FORMATS.items():
                # "BF16" does not hold "FP16", but "FP16" is in no other name either.
                if name.upper() in spelled:
                    found[precision] += 1
                    break
    if not found:
        raise BackendError(f"{where}: its inspector tells no types of its layers")
    return found
