"""Test which layers are quantized, and their names."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from glesam_calibration.qdq import insert
from glesam_calibration.quantizable_layers import block_of, find_layers, is_quantized
from glesam_runtime import open_bundle

from .graphs import layered


def test_every_kind_of_layer_and_nothing_else() -> None:
    found = {layer.node: layer for layer in find_layers(layered().graph)}
    assert {name: (layer.name, layer.axis) for name, layer in found.items()} == {
        "conv": ("stem", 0),
        "transposed": ("up", 1),
        "strided": ("down", 0),
        "product": ("head.lin", 1),
        "narrow product": ("head.lin.narrow product", 1),
        "gemm": ("out", 0),
    }
    assert found["product"].activation == "t"
    assert found["gemm"].elements == 5 * 81


def test_the_layers_of_nano_are_named_after_the_checkpoint() -> None:
    bundle = open_bundle()
    layers = {
        stage: find_layers(ir.load(bundle.graph_path(stage)).graph)
        for stage in bundle.manifest.stages
    }
    assert {stage: len(found) for stage, found in layers.items()} == {
        "encoder": 27,
        "enhancer": 105,
        "decoder": 51,
    }
    for found in layers.values():
        names = [layer.name for layer in found]
        assert len(set(names)) == len(names)
    names = [layer.name for layer in layers["encoder"]]
    assert names[:3] == ["patch_embed", "blocks.0.attention.qkv", "blocks.0.attention.proj"]
    # The matrix that a point's coordinates are multiplied with is not a layer.
    assert "points.frequencies" not in {layer.weight for layer in layers["decoder"]}


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("blocks.11.attention.qkv", "blocks.11"),
        ("downs.0.steps.0.1.layers.0.value", "downs.0.steps.0.1.layers.0"),
        ("neck.2", "neck.2"),
        ("conv_in", "conv_in"),
    ],
)
def test_blocks(name: str, block: str) -> None:
    assert block_of(name) == block


def test_what_is_quantized_already_is_known() -> None:
    model = layered()
    assert not is_quantized(model.graph)
    insert(model, find_layers(model.graph)[:1], None, "int8")
    assert is_quantized(model.graph)
