"""Make config.pbtxt: of the three graphs by the manifest, and of the models in Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glesam_runtime.errors import InputError
from glesam_runtime.manifest import Manifest, Stage, StageName

GRAPH_FILES = {"onnxruntime": "model.onnx", "openvino": "model.onnx", "tensorrt": "model.plan"}
"""The name of a graph in a version's folder, by Triton's backend."""
_LARGEST_BATCH = 8
"""Images that Triton may join for a graph whose batch is dynamic and has no profile."""


class Enum(str):
    """A value that is written without quotes."""

    __slots__ = ()


@dataclass(frozen=True)
class GraphModel:
    """How Triton runs one stage."""

    backend: str
    file: str
    max_batch: int
    """0 if Triton may not join requests, because the graph's first axis is fixed or not a batch of
    images."""


def model_name(stage: StageName) -> str:
    """Return the name of a stage's model in the repository."""
    return f"glesam_{stage}"


def graph_model(manifest: Manifest, stage: StageName, onnx_backend: str) -> GraphModel:
    """Return how Triton runs a stage.

    Args:
        manifest: the bundle's manifest.
        stage: the stage.
        onnx_backend: "onnxruntime" or "openvino", for ONNX graphs.

    Raises:
        InputError: Triton has no backend for the bundle's engines.
    """
    family = manifest.target.engine
    if family == "tensorrt-rtx":
        raise InputError(
            "this bundle has engines of TensorRT-RTX, for which Triton has no backend; compile it "
            "with glesam-export trt --engine tensorrt, or use the ONNX bundle"
        )
    backend = "tensorrt" if family == "tensorrt" else onnx_backend
    return GraphModel(backend, GRAPH_FILES[backend], _largest_batch(manifest, stage))


def _largest_batch(manifest: Manifest, stage: StageName) -> int:
    if stage == "decoder" or manifest.target.batch != "dynamic":
        return 0
    record = manifest.stages[stage]
    axis = str(record.inputs[0].shape[0])
    profile = record.profile or {}
    return profile[axis].max if axis in profile else _LARGEST_BATCH


def graph_config(
    stage: StageName,
    record: Stage,
    model: GraphModel,
    instances: int,
    device: str,
    warmup: Mapping[str, Sequence[int]],
) -> str:
    """Return the config.pbtxt of a stage.

    Args:
        stage: the stage.
        record: the stage in the manifest.
        model: how Triton runs it.
        instances: copies of the graph that run at the same time.
        device: "cpu" or "gpu".
        warmup: the shape of each input's tensor in the folder `warmup`.
    """
    skip = 1 if model.max_batch else 0

    def tensors(specs: Any) -> list[dict[str, Any]]:
        return [
            {"name": spec.name, "data_type": Enum("TYPE_FP32"), **dims(spec.shape[skip:])}
            for spec in specs
        ]

    def dims(shape: Sequence[int | str]) -> dict[str, Any]:
        if not shape:  # one number for each image; Triton wants an axis in requests
            return {"dims": [1], "reshape": {"shape": []}}
        return {"dims": [-1 if isinstance(axis, str) else axis for axis in shape]}

    config: dict[str, Any] = {
        "name": model_name(stage),
        "backend": model.backend,
        "default_model_filename": model.file,
        "max_batch_size": model.max_batch,
        "input": tensors(record.inputs),
        "output": tensors(record.outputs),
        "instance_group": [_instances(instances, device)],
        "version_policy": {"all": {}},
    }
    if model.max_batch:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": 500}
    config["model_warmup"] = [
        {
            "name": "golden",
            "batch_size": 1 if model.max_batch else 0,
            "inputs": [
                {
                    "key": name,
                    "value": {
                        "data_type": Enum("TYPE_FP32"),
                        "dims": list(shape[skip:]) or [1],
                        "input_data_file": f"{name}.bin",
                    },
                }
                for name, shape in warmup.items()
            ],
        }
    ]
    return to_text(config)


_Tensor = tuple[str, str, list[int]]
"""Name, type and dimensions."""
_INPUTS: tuple[_Tensor, ...] = (
    ("image", "TYPE_STRING", [1]),
    ("pixels", "TYPE_UINT8", [-1, -1, 3]),
    ("image_id", "TYPE_STRING", [1]),
    ("point_coords", "TYPE_FP32", [-1, -1, 2]),
    ("point_labels", "TYPE_FP32", [-1, -1]),
    ("boxes", "TYPE_FP32", [-1, 4]),
    ("mask_input", "TYPE_FP32", [-1, 1, -1, -1]),
    ("multimask", "TYPE_BOOL", [1]),
)
_OUTPUTS: tuple[_Tensor, ...] = (
    ("masks", "TYPE_UINT8", [-1, -1, -1, -1]),
    ("rle", "TYPE_STRING", [-1, -1]),
    ("size", "TYPE_INT32", [2]),
    ("iou_predictions", "TYPE_FP32", [-1, -1]),
    ("low_res_masks", "TYPE_FP32", [-1, -1, -1, -1]),
    ("image_id", "TYPE_STRING", [1]),
)
_SEARCH_OUTPUTS: tuple[_Tensor, ...] = (
    ("rle", "TYPE_STRING", [1]),
    ("size", "TYPE_INT32", [2]),
    ("box", "TYPE_INT32", [4]),
    ("point", "TYPE_FP32", [2]),
    ("predicted_iou", "TYPE_FP32", [1]),
    ("stability_score", "TYPE_FP32", [1]),
    ("area", "TYPE_INT64", [1]),
)


def python_config(
    name: str, *, everything: bool, instances: int, device: str, parameters: Mapping[str, str]
) -> str:
    """Return the config.pbtxt of a model in Python.

    Args:
        name: the model's name.
        everything: True for everything-mode, which sends one response for each mask.
        instances: processes that run it.
        device: "cpu" or "gpu".
        parameters: what `model.TritonPythonModel` reads.
    """
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    if everything:
        inputs = (*_INPUTS[:2], ("parameters", "TYPE_STRING", [1]))
        outputs = _SEARCH_OUTPUTS
        optional = {"image", "pixels", "parameters"}
    else:
        inputs, outputs = _INPUTS, _OUTPUTS
        optional = {each[0] for each in _INPUTS}
    config: dict[str, Any] = {
        "name": name,
        "backend": "python",
        "max_batch_size": 0,
        "input": [
            {
                "name": key,
                "data_type": Enum(kind),
                "dims": dims,
                **({"optional": True} if key in optional else {}),
            }
            for key, kind, dims in inputs
        ],
        "output": [
            {"name": key, "data_type": Enum(kind), "dims": dims} for key, kind, dims in outputs
        ],
        "instance_group": [_instances(instances, device)],
        "version_policy": {"all": {}},
    }
    if everything:
        config["model_transaction_policy"] = {"decoupled": True}
    config["parameters"] = [
        {"key": key, "value": {"string_value": value}} for key, value in parameters.items()
    ]
    return to_text(config)


def _instances(count: int, device: str) -> dict[str, Any]:
    return {"count": count, "kind": Enum("KIND_GPU" if device == "gpu" else "KIND_CPU")}


def to_text(message: Mapping[str, Any]) -> str:
    """Return a message in protobuf's text format."""
    return "\n".join(_lines(message)) + "\n"


def _lines(message: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for key, value in message.items():
        values = value if isinstance(value, list) and value and isinstance(value[0], dict) else None
        if values is None and not isinstance(value, Mapping):
            yield f"{indent}{key}: {_scalar(value)}"
            continue
        for each in values or [value]:
            inner = list(_lines(each, indent + "  "))
            yield f"{indent}{key} {{"
            yield from inner
            yield f"{indent}}}"


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    if isinstance(value, list):
        return "[" + ", ".join(_scalar(each) for each in value) + "]"
    return str(value)
