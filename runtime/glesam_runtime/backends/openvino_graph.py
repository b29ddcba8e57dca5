"""A half-precision graph as OpenVINO computes it fastest.

Told to compute in bfloat16, OpenVINO does so everywhere, in a graph's float32 islands too (its
kernels add up in float32). What is left of an island is the casts on either side, and they keep
attention from being fused: ViT-B's encoder takes 1.49 s with them and 1.29 s without
(docs/performance.md). Computing in float32, they round what need not be rounded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_FLOATS = ("f32", "f16", "bf16")


def without_casts(model: Any) -> None:
    """Make a model float32 throughout, in place, on weights that stay in half precision.

    Args:
        model: openvino.Model of a graph typed float16 or bfloat16.
    """
    from openvino import opset13 as ops

    for node in model.get_ordered_ops():
        output = node.output(0) if node.get_output_size() else None
        if output is None or not _is_float(output):
            continue
        kind = node.get_type_name()
        if kind == "Constant" and output.get_element_type().get_type_name() != "f32":
            readers = list(output.get_target_inputs())
            weight = ops.convert(node, "f32")
            # OpenVINO's mark of a compressed weight, which is not unfolded ahead.
            weight.get_rt_info()["decompression_0"] = ""
            _lead(readers, weight.output(0))
        elif kind == "Convert" and _is_float(node.input_value(0)):
            source = node.input_value(0)
            if source.get_node().get_type_name() != "Constant":
                readers = output.get_target_inputs()
                if any(reader.get_node().get_type_name() == "Result" for reader in readers):
                    source.get_tensor().set_names(output.get_names())  # the graph's output
                _lead(readers, source)
    model.validate_nodes_and_infer_types()


def _lead(readers: Iterable[Any], source: Any) -> None:
    """Give inputs another source; its names stay its own."""
    for reader in list(readers):
        reader.replace_source_output(source)


def _is_float(output: Any) -> bool:
    name: str = output.get_element_type().get_type_name()
    return name in _FLOATS
