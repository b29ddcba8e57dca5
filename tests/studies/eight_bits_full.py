"""Time the encoder and the enhancer of a full-size bundle with every layer in eight bits.

Usage: python -m tests.studies.eight_bits_full BUNDLE [STAGE ...]

The Q/DQ nodes have guessed ranges, so the outputs mean nothing: this is the speed of a model whose
calibration leaves no layer out. Each way runs in a process of its own, on one thread, and the time
is the least processor time of two runs, which other processes change little.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .pieces import ort, ov

WAYS = ("OpenVINO fp32", "OpenVINO bf16", "OpenVINO int8", "ONNX Runtime fp32", "ONNX Runtime int8")
RUNS = 2
_RANGE = np.float32(4 / 127)


def quantize(source: Path, destination: Path) -> int:
    """Write a graph with Q/DQ around every matrix product and convolution; return their number."""
    model = onnx.load(source)
    weights = {each.name: each for each in model.graph.initializer}
    zero = helper.make_tensor("zero", TensorProto.INT8, [], [0])
    scale = numpy_helper.from_array(_RANGE, "scale")
    nodes, made, count = [], {"zero": zero, "scale": scale}, 0
    for node in model.graph.node:
        weight = weights.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or not _is_layer(node.op_type, len(weight.dims)):
            nodes.append(node)
            continue
        count += 1
        values = numpy_helper.to_array(weight)
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        axis = 0 if node.op_type == "Conv" or transposed else values.ndim - 1
        others = tuple(a for a in range(values.ndim) if a != axis)
        steps = np.maximum(np.abs(values).max(axis=others), 1e-6) / np.float32(127)
        wide = np.expand_dims(steps, others)
        name = f"q{count}"
        made[name] = numpy_helper.from_array(np.rint(values / wide).astype(np.int8), name)
        made[f"{name}.s"] = numpy_helper.from_array(steps.astype(np.float32), f"{name}.s")
        made[f"{name}.z"] = numpy_helper.from_array(np.zeros(len(steps), np.int8), f"{name}.z")
        quantizers = [
            ("QuantizeLinear", [node.input[0], "scale", "zero"], f"{name}.x", {}),
            ("DequantizeLinear", [f"{name}.x", "scale", "zero"], f"{name}.y", {}),
            ("DequantizeLinear", [name, f"{name}.s", f"{name}.z"], f"{name}.w", {"axis": axis}),
        ]
        nodes += [helper.make_node(kind, ins, [out], **more) for kind, ins, out, more in quantizers]
        node.input[0], node.input[1] = f"{name}.y", f"{name}.w"
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [each for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *made.values()])
    onnx.save_model(
        model, destination, save_as_external_data=True, location=f"{destination.name}.data"
    )
    return count


def _is_layer(kind: str, rank: int) -> bool:
    """Return whether calibration would quantize a node with a constant of this rank."""
    return rank == {"MatMul": 2, "Gemm": 2, "Conv": 4}.get(kind)


def run_one(way: str, path: Path) -> None:
    """Print the least processor time of a graph."""
    engine, precision = way.rsplit(" ", 1)
    read = "fp32" if precision == "int8" else precision
    run = ov(path, read) if engine == "OpenVINO" else ort(path)
    side = (3, 1024, 1024) if path.name.startswith("encoder") else (256, 64, 64)
    name = "image" if side[0] == 3 else "image_embeddings"
    given = {name: np.random.default_rng(0).normal(size=(1, *side)).astype(np.float32)}
    run(given)
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        run(given)
        times.append(time.process_time() - start)
    status = Path("/proc/self/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+)", status)
    assert peak is not None
    print(f"{min(times):.3f} {int(peak[1]) * 1024 / 1e9:.2f}")


def main() -> None:
    """Print a row for each stage and way."""
    if sys.argv[1] == "--only":
        run_one(sys.argv[2], Path(sys.argv[3]))
        return
    bundle, *stages = sys.argv[1:]
    for stage in stages or ("encoder", "enhancer"):
        with TemporaryDirectory() as folder:
            path = Path(bundle, f"{stage}.onnx")
            eight = Path(folder, f"{stage}.onnx")
            print(f"{stage}: {quantize(path, eight)} layers in eight bits", flush=True)
            first = None
            for way in WAYS:
                graph = eight if way.endswith("int8") else path
                command = [sys.executable, "-m", __spec__.name, "--only", way, str(graph)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                seconds, peak = map(float, done.stdout.split())
                first = first or seconds
                print(
                    f"  {way:<18} {seconds:6.2f} s, {first / seconds:.2f}x, peak {peak:.2f} GB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
