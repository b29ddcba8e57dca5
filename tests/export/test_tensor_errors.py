"""The comparison finds the tensors that half precision rounds or overflows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn

from glesam_export import precision, tensor_errors, tracing
from glesam_export.graphs import Graph

Run = Callable[..., tuple[int, str, str]]


class Small(Graph):
    """Has an encoder's interface and two convolutions; the second one may overflow."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Conv2d(3, 256, 16, stride=16, bias=False)
        self.second = nn.Conv2d(256, 256, 1, bias=False)
        for layer, scale in ((self.first, 1.0), (self.second, gain)):
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * scale / 16
        self.norm = nn.GroupNorm(1, 256)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(image.to(self.dtype)))
        y: torch.Tensor = self.norm(self.second(x) * 0.5)
        return y.float()


def compared(gain: float, folder: Path) -> list[tensor_errors.TensorError]:
    graph = Small(gain).eval()
    precision.cast_graph(
        graph, "enhancer", "fp16"
    )  # the enhancer's islands are those of this graph
    path, _ = tracing.export(graph, "encoder", "fp16", 32, 1, folder)
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    runners = [tensor_errors.OnnxRunner(path, folder, rounded=rounded) for rounded in (False, True)]
    return list(tensor_errors.compare_tensors(ir.load(path).graph, *runners, {"image": image}))


def test_errors_are_those_of_torch(tmp_path: Path) -> None:
    """One side is float32 with rounded weights; the other rounds like torch's float16."""
    found = {error.op_type: error for error in compared(1.0, tmp_path)}
    graph = Small(1.0).eval()
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype("f4"))
    exact = nn.functional.conv2d(image, graph.first.weight.half().float(), stride=16)
    half = nn.functional.conv2d(image.half(), graph.first.weight.half(), stride=16).float()
    wanted = float((half - exact).norm() / exact.norm())
    relu = found["Relu"].relative_l2
    assert 0.3 * wanted < relu < 3 * wanted
    assert found["Relu"].largest == pytest.approx(float(exact.max()), rel=1e-4)


def test_the_first_overflow_is_named(tmp_path: Path) -> None:
    errors = compared(1e5, tmp_path)
    first = next(error for error in errors if not np.isfinite(error.relative_l2))
    assert first.op_type == "Conv"
    assert first.largest > 65504
    assert [error.op_type for error in errors].index("Relu") < errors.index(first)
    text = tensor_errors.error_table(errors, top=1)
    assert f"first not finite: {first.tensor} (Conv)" in text
    assert f"of {len(errors)} tensors" in text


def test_groups_do_not_change_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compared(1.0, tmp_path)
    monkeypatch.setattr(tensor_errors, "GROUP_BYTES", 1)
    assert compared(1.0, tmp_path) == whole
    assert len({error.tensor for error in whole}) == len(whole) > 5


def test_the_command(glesam_export: Run, nano16_bundle: Path, nano_bundle: Path) -> None:
    code, out, err = glesam_export("debug", nano16_bundle, "--stage", "decoder", "--top", 3)
    assert code == 0, err
    assert out.count("\n") == 5
    assert "3 of " in out
    code, _, err = glesam_export("debug", nano_bundle)
    assert code == 2
    assert "encoder is fp32, which rounds nothing" in err
    code, _, err = glesam_export("debug", nano16_bundle, "--against", "tensorrt-rtx")
    assert code == 2
    assert "no NVIDIA GPU can be used here" in err
    assert "--against rounded needs no GPU" in err
