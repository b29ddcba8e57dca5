"""Build small graphs to quantize."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

node = helper.make_node


def layered(seed: int = 0) -> ir.Model:
    """Make a graph with each kind of layer and with other nodes: x [2,16,6,6] -> y [2,5]."""
    rng = np.random.default_rng(seed)
    nodes = [
        node("Conv", ["x", "stem.weight", "stem.bias"], ["c"], "conv", pads=[1] * 4),
        node("Relu", ["c"], ["r"], "relu"),
        node("ConvTranspose", ["r", "up.weight"], ["u"], "transposed"),  # [2,12,7,7]
        node("Conv", ["u", "down.weight"], ["d"], "strided", strides=[2, 2]),  # [2,20,3,3]
        node("Reshape", ["d", "rows"], ["f"], "reshape"),
        node("Transpose", ["f"], ["t"], "transpose", perm=[0, 2, 1]),  # [2,9,20]
        node("MatMul", ["t", "val_3"], ["m"], "product"),
        node("Add", ["m", "head.lin.bias"], ["a"], "bias"),  # [2,9,16]
        node("MatMul", ["a", "narrow"], ["n"], "narrow product"),  # [2,9,4]
        node("MatMul", ["n", "four inputs"], ["w"], "four inputs"),  # [2,9,16]
        node("Transpose", ["w"], ["wt"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["a", "wt"], ["p"], "two activations"),  # [2,9,9]
        node("Reshape", ["p", "flat"], ["g"], "flatten"),  # [2,81]
        node("Gemm", ["g", "out.weight", "out.bias"], ["y"], "gemm", transB=1),
    ]
    shapes = {
        "stem.weight": (16, 16, 3, 3),
        "stem.bias": (16,),
        "up.weight": (16, 12, 2, 2),
        "down.weight": (20, 12, 2, 2),
        "val_3": (20, 16),
        "head.lin.bias": (16,),
        "narrow": (16, 4),
        "four inputs": (4, 16),
        "out.weight": (5, 81),
        "out.bias": (5,),
    }
    weights = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    return make(nodes, weights, {"rows": [0, 20, 9], "flat": [0, 81]}, [2, 16, 6, 6])


def normed(norm_is_read_elsewhere: bool = False, seed: int = 0) -> ir.Model:
    """Make a graph of a LayerNorm, padded windows and two products: x [1,5,24] -> y [2,3,7].

    Its channel 3 is a hundred times as large as the others.
    """
    rng = np.random.default_rng(seed)
    gain = np.ones(24)
    gain[3] = 100
    nodes = [
        node("LayerNormalization", ["x", "gain", "offset"], ["n"], "norm"),
        node("Pad", ["n", "pads"], ["padded"], "pad"),  # [1,6,24]
        node("Reshape", ["padded", "windows"], ["w"], "windows"),  # [2,3,24]
        node("MatMul", ["w", "q.weight"], ["q"], "node_q"),
        node("MatMul", ["w", "k.weight"], ["k"], "node_k"),
        node("Add", ["q", "k"], ["y"], "sum"),
    ]
    if norm_is_read_elsewhere:
        nodes.append(node("ReduceSum", ["n"], ["z"], "elsewhere"))
    weights = {
        "gain": gain,
        "offset": rng.normal(size=24),
        "q.weight": rng.normal(size=(24, 7)),
        "k.weight": rng.normal(size=(24, 7)),
    }
    return make(nodes, weights, {"pads": [0, 0, 0, 0, 1, 0], "windows": [2, 3, 24]}, [1, 5, 24])


def make(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    integers: dict[str, list[int]],
    shape: Sequence[int],
) -> ir.Model:
    constants = [numpy_helper.from_array(w.astype(np.float32), n) for n, w in weights.items()]
    constants += [numpy_helper.from_array(np.asarray(v, np.int64), n) for n, v in integers.items()]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def run(model: ir.Model, x: np.ndarray, *more: str) -> list[np.ndarray]:
    """Return the graph's output and inner tensors, computed by ONNX's reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    proto = ir.to_proto(model)
    # The evaluator supports Q/DQ from opset 19 on. Until then they only gained types.
    proto.opset_import[0].version = max(19, proto.opset_import[0].version)
    return ReferenceEvaluator(proto).run(["y", *more], {"x": x.astype(np.float32)})
