"""Our choice of simplification rules gives the same graph as PyTorch's exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnxscript.rewriter import RewritePass
from segment_anything.modeling import PromptEncoder
from segment_anything.modeling.image_encoder import Block
from torch import nn

from glesam_export.families.sam.decoder import PointEmbedding
from glesam_export.families.sam.encoder import EncoderBlock
from glesam_export.simplify import gelu_rule, simplify


def windows() -> tuple[nn.Module, tuple[torch.Tensor, ...], Any]:
    """Return windowed attention with padding, which has many reshapes, pads and slices."""
    block = Block(16, 2, window_size=3, input_size=(3, 3), use_rel_pos=True)
    return EncoderBlock(block, grid=4), (torch.zeros(1, 16, 16),), None


def points() -> tuple[nn.Module, tuple[torch.Tensor, ...], Any]:
    """Return a module with dynamic prompts and points, whose graph computes shapes."""
    encoder = PromptEncoder(16, (4, 4), (64, 64), mask_in_chans=4)
    free = {0: "B", 1: "P"}
    given = torch.zeros(3, 5, 2), torch.zeros(3, 5)
    return PointEmbedding(encoder), given, (free, free)


@pytest.mark.parametrize("make", [windows, points])
def test_it_is_what_all_rules_make_of_it(make: Any) -> None:
    nodes = {}
    for optimize in (False, True):
        torch.manual_seed(0)
        module, given, free = make()
        program = torch.onnx.export(
            module.eval(),
            given,
            dynamo=True,
            opset_version=18,
            dynamic_shapes=free,
            optimize=optimize,
            verbose=False,
        )
        assert program is not None
        before = len(program.model.graph)
        if not optimize:
            simplify(program.model)
            assert len(program.model.graph) < before
        RewritePass([gelu_rule])(program.model)
        nodes[optimize] = [
            (node.op_type, node.name, [value and value.name for value in node.inputs])
            for node in program.model.graph
        ]
    assert nodes[False] == nodes[True]


def test_onnxruntime_fuses_a_gelu(tmp_path: Path) -> None:
    """The order of its operations is one that ONNX Runtime knows; PyTorch's own is not."""
    module, given = nn.Sequential(nn.Linear(8, 16), nn.GELU()).eval(), torch.randn(2, 4, 8)
    kinds = {}
    for simplified in (False, True):
        program = torch.onnx.export(
            module, (given,), dynamo=True, opset_version=18, optimize=not simplified, verbose=False
        )
        assert program is not None
        if simplified:
            simplify(program.model)
        ir.save(program.model, tmp_path / "gelu.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "fused.onnx")
        session = onnxruntime.InferenceSession(
            tmp_path / "gelu.onnx", options, providers=["CPUExecutionProvider"]
        )
        (got,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        np.testing.assert_allclose(got, module(given).detach().numpy(), atol=1e-6)
        kinds[simplified] = {node.op_type for node in ir.load(tmp_path / "fused.onnx").graph}
    assert "Erf" in kinds[False], "the rule is no longer needed"
    assert "Erf" not in kinds[True]
