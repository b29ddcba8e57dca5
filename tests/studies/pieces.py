"""Time pieces of full-size graphs in several forms, which take turns in one process.

Usage: python -m tests.studies.pieces chunks|int8 [ROUNDS]

`chunks`: attention of ViT-B's global blocks and of SD 2.1's U-Net, one head at a time, and a part
of its queries at a time. `int8`: layers of both in float32, bfloat16 and eight bits.
Engines run on one thread, and the ratio is that of the least processor times: other processes on
the cores change them little.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from glesam_runtime.backends.onnxruntime import session_options
from glesam_runtime.backends.openvino import properties_of
from glesam_runtime.engine_libraries import openvino_core
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.machine import cpu_name

Arrays = Mapping[str, np.ndarray]
Run = Callable[[Arrays], np.ndarray]


class Graph:
    """A graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        """Add a node, and return the name of its output."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: np.ndarray) -> str:
        """Add a constant, and return its name."""
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def save(self, path: Path, inputs: Arrays, output: str) -> Path:
        """Write the graph."""
        kinds = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
            for name, value in inputs.items()
        ]
        out = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        made = helper.make_graph(self.nodes, "piece", kinds, out, self.weights)
        model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save_model(model, path)
        return path


def attention(heads: int, side: int, chunk: int, biased: bool) -> tuple[Graph, Arrays, str]:
    """Return attention of `heads` heads over side x side tokens, `chunk` queries at a time."""
    rng = np.random.default_rng(0)
    tokens, size = side * side, 64
    inputs = {name: rng.normal(size=(heads, tokens, size)).astype(np.float32) for name in "qkv"}
    if biased:
        for name in ("rows", "columns"):
            inputs[name] = rng.normal(size=(heads, tokens, side)).astype(np.float32)
    graph = Graph()
    scale = graph.constant(np.float32(size**-0.5))
    axis = graph.constant(np.array([1]))
    taken = []
    for head in range(heads):
        number = graph.constant(np.array(head))
        mine = {name: graph.add("Gather", name, number, axis=0) for name in inputs}
        keys = graph.add("Transpose", mine["k"], perm=[1, 0])
        parts = []
        for start in range(0, tokens, chunk):
            ends = [graph.constant(np.array([at])) for at in (start, start + chunk, 0)]

            def cut(name: str, ends: list[str] = ends, mine: dict[str, str] = mine) -> str:
                return mine[name] if chunk == tokens else graph.add("Slice", mine[name], *ends)

            scores = graph.add("Mul", graph.add("MatMul", cut("q"), keys), scale)
            if biased:
                rows = graph.add("Unsqueeze", cut("rows"), graph.constant(np.array([2])))
                columns = graph.add("Unsqueeze", cut("columns"), axis)
                shape = graph.constant(np.array([chunk, tokens]))
                bias = graph.add("Reshape", graph.add("Add", rows, columns), shape)
                scores = graph.add("Add", scores, bias)
            weights = graph.add("Softmax", scores, axis=-1)
            parts.append(graph.add("MatMul", weights, mine["v"]))
        taken.append(parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=0))
    return graph, inputs, graph.add("Concat", *taken, axis=1)


def layer(kind: str, quantized: bool) -> tuple[Graph, Arrays, str]:
    """Return a layer, with Q/DQ of its input and of each output channel of its weights."""
    rng = np.random.default_rng(0)
    graph = Graph()
    shapes = {
        "ViT-B, MLP 768 to 3072": ((1, 4096, 768), (768, 3072)),
        "U-Net, 3x3 of 320 at 64 x 64": ((1, 320, 64, 64), (320, 320, 3, 3)),
        "U-Net, 3x3 of 1280 at 16 x 16": ((1, 1280, 16, 16), (1280, 1280, 3, 3)),
    }
    given, shape = shapes[kind]
    x = rng.normal(size=given).astype(np.float32)
    weights = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    if quantized:
        data = graph.constant(np.float32(np.abs(x).max() / 127))
        zero = graph.constant(np.int8(0))
        value = graph.add(
            "DequantizeLinear", graph.add("QuantizeLinear", "x", data, zero), data, zero
        )
        axis = 1 if weights.ndim == 2 else 0
        others = tuple(a for a in range(weights.ndim) if a != axis)
        steps = np.abs(weights).max(axis=others) / 127
        wide = steps.reshape([-1 if a == axis else 1 for a in range(weights.ndim)])
        bytes_ = np.clip(np.rint(weights / wide), -127, 127).astype(np.int8)
        zeros = graph.constant(np.zeros(len(steps), np.int8))
        weight = graph.add(
            "DequantizeLinear", graph.constant(bytes_), graph.constant(steps), zeros, axis=axis
        )
    else:
        value, weight = "x", graph.constant(weights)
    if weights.ndim == 2:
        out = graph.add("MatMul", value, weight)
    else:
        out = graph.add("Conv", value, weight, pads=[1, 1, 1, 1])
    return graph, {"x": x}, graph.add("Relu", out)


def ort(path: Path) -> Run:
    """Return how to run a graph with the settings of our ONNX Runtime backend."""
    options = session_options(EngineOptions(threads=1))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, dict(given))[0]


def ov(path: Path, precision: str) -> Run:
    """Return how to run a graph with the settings of our OpenVINO backend."""
    properties = properties_of(EngineOptions(threads=1), precision)
    request = openvino_core().compile_model(path, "CPU", properties).create_infer_request()
    return lambda given: request.infer(dict(given), share_inputs=True)[0].copy()


def race(runs: Mapping[str, Run], inputs: Arrays, rounds: int) -> None:
    """Run all in turns, and print times, ratios to the first, and the distance from it."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    expected = next(iter(runs.values()))(inputs)
    error = {}
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            found = run(inputs)
            if number:
                times[name].append(time.process_time() - start)
            else:
                error[name] = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    first = min(next(iter(times.values())))
    for name, mine in times.items():
        print(
            f"  {name:<28} least {1e3 * min(mine):7.1f} ms, median "
            f"{1e3 * statistics.median(mine):7.1f}, {first / min(mine):.2f}x, "
            f"relative L2 {error[name]:.1e}",
            flush=True,
        )


def main() -> None:
    """Print the times of one question."""
    what, *rest = sys.argv[1:]
    rounds = int(rest[0]) if rest else 15
    features = [flag for flag in cpu_name().split() if flag.startswith(("avx512_", "amx", "avx2"))]
    print(f"features: {' '.join(features)}; {rounds} rounds")
    with TemporaryDirectory() as folder:
        if what == "chunks":
            for title, heads, side, biased in (
                ("ViT-B, a global block's 12 heads", 12, 64, True),
                ("SD 2.1, 5 heads at 64 x 64", 5, 64, False),
            ):
                runs = {}
                for chunk in (side * side, 1024, 512):
                    graph, inputs, out = attention(heads, side, chunk, biased)
                    path = graph.save(Path(folder, f"{heads}-{chunk}.onnx"), inputs, out)
                    runs[f"{chunk} queries at a time"] = ort(path)
                print(f"{title}, ONNX Runtime")
                race(runs, inputs, rounds)
            return
        for title in (
            "ViT-B, MLP 768 to 3072",
            "U-Net, 3x3 of 320 at 64 x 64",
            "U-Net, 3x3 of 1280 at 16 x 16",
        ):
            graphs = [layer(title, quantized) for quantized in (False, True)]
            paths = [
                graph.save(Path(folder, f"{index}.onnx"), inputs, out)
                for index, (graph, inputs, out) in enumerate(graphs)
            ]
            print(title)
            runs = {
                "OpenVINO float32": ov(paths[0], "fp32"),
                "OpenVINO bfloat16": ov(paths[0], "bf16"),
                "OpenVINO int8": ov(paths[1], "fp32"),
                "ONNX Runtime float32": ort(paths[0]),
                "ONNX Runtime int8": ort(paths[1]),
            }
            race(runs, graphs[0][1], rounds)


if __name__ == "__main__":
    main()
