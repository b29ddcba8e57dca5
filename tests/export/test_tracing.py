"""ONNX files have dynamic axes and external data, are reproducible, and name no machine."""

from __future__ import annotations

import getpass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from glesam_calibration import graph_files
from glesam_export import stages, tracing
from glesam_runtime.bundle import open_bundle
from glesam_runtime.compare import relative_l2
from glesam_runtime.manifest import STAGES

from ..traced import Traced
from .conftest import random_nano


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def test_batch_is_free_or_fixed(traced: Traced, tmp_path: Path) -> None:
    expected = random_nano().enhancer()
    z_l = torch.randn(3, 256, 16, 16)
    with torch.no_grad():
        wanted = expected(z_l).numpy()
    for batch, sizes in (("dynamic", (1, 2, 3)), (2, (2,))):
        stage = traced.export_stage(random_nano(), "enhancer", "fp32", batch, tmp_path)
        runner = session(tmp_path / stage.graph.file)
        for size in sizes:
            (found,) = runner.run(None, {"image_embeddings": z_l[:size].numpy()})
            assert relative_l2(found, wanted[:size]) < 1e-5
    assert runner.get_inputs()[0].shape[0] == 2


@pytest.mark.parametrize("prompts", [1, 7])
@pytest.mark.parametrize("clicks", [0, 1, 15])
def test_decoder_takes_any_number_of_prompts_and_points(
    prompts: int, clicks: int, nano_bundle: Path
) -> None:
    """Test a mask prompt, which has no points, and points, which end with the padding point."""
    generator = torch.Generator().manual_seed(prompts + clicks)
    tokens = clicks + 1 if clicks else 0
    coords = torch.rand(prompts, tokens, 2, generator=generator) * 256
    labels = torch.ones(prompts, tokens)
    coords[:, clicks:], labels[:, clicks:] = 0, -1
    inputs = {
        "image_embeddings": torch.randn(1, 256, 16, 16, generator=generator),
        "point_coords": coords,
        "point_labels": labels,
        "mask_input": torch.randn(prompts, 1, 64, 64, generator=generator),
        "has_mask_input": torch.tensor([0.0 if clicks else 1.0]),
    }
    with torch.no_grad():
        masks, iou = random_nano().decoder()(**inputs)
    feeds = {name: tensor.numpy() for name, tensor in inputs.items()}
    decoder = session(open_bundle(nano_bundle).graph_path("decoder"))
    found_masks, found_iou = decoder.run(None, feeds)
    assert found_masks.shape == (prompts, 4, 64, 64)
    assert relative_l2(found_masks, masks.numpy()) < 1e-5
    assert relative_l2(found_iou, iou.numpy()) < 1e-5


def test_no_file_holds_anything_of_this_machine(nano_bundle: Path) -> None:
    words = [str(Path.home()), str(Path(__file__).parents[2]), "site-packages"]
    if getpass.getuser() != "root":
        words.append(getpass.getuser())
    for file in nano_bundle.iterdir():
        raw = file.read_bytes()
        for word in words:
            assert word.encode() not in raw, f"{file.name} holds {word}"


def test_graphs_are_free_of_what_engines_reject(nano_bundle: Path) -> None:
    banned = {"OneHot", "If", "Loop", "NonZero", "ScatterND", "TopK"}
    for stage in STAGES:
        model = onnx.load(open_bundle(nano_bundle).graph_path(stage))
        onnx.checker.check_model(model, full_check=True)
        assert not banned & {node.op_type for node in model.graph.node}


def test_external_data_past_the_threshold(
    nano_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test only how a graph is written, with one that was traced before."""
    program = torch.onnx.ONNXProgram(ir.load(open_bundle(nano_bundle).graph_path("enhancer")), None)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: program)
    monkeypatch.setattr(graph_files, "EXTERNAL_DATA_FROM", 1000)
    graph = stages.graph(random_nano(), "enhancer")
    with torch.no_grad():
        wanted = random_nano().enhancer()(torch.ones(1, 256, 16, 16)).numpy()
    path, data = tracing.export(graph, "enhancer", "fp32", 256, 1, tmp_path)
    assert data is not None
    assert data.name == "enhancer.onnx.data"
    assert path.stat().st_size < data.stat().st_size
    (found,) = session(path).run(None, {"image_embeddings": np.ones((1, 256, 16, 16), np.float32)})
    assert relative_l2(found, wanted) < 1e-5


def test_the_same_weights_give_the_same_bytes(nano_bundle: Path, tmp_path: Path) -> None:
    graph = stages.graph(random_nano(), "enhancer")
    path, _ = tracing.export(graph, "enhancer", "fp32", 256, 1, tmp_path)
    assert path.read_bytes() == open_bundle(nano_bundle).graph_path("enhancer").read_bytes()
