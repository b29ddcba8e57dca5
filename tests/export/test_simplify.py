"""Our choice of simplification rules gives the same graph as PyTorch's exporter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from segment_anything.modeling import PromptEncoder
from segment_anything.modeling.image_encoder import Block
from torch import nn

from glesam_export.families.sam.decoder import PointEmbedding
from glesam_export.families.sam.encoder import EncoderBlock
from glesam_export.simplify import simplify


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
        nodes[optimize] = [
            (node.op_type, node.name, [value and value.name for value in node.inputs])
            for node in program.model.graph
        ]
    assert nodes[False] == nodes[True]
