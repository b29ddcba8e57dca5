"""Graphs whose results are NaN or of another shape end with one line and without files."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from glesam_runtime import GleSamPredictor, console, open_bundle
from glesam_runtime.bundle import file_ref
from glesam_runtime.cli import app
from glesam_runtime.errors import BackendError
from glesam_runtime.manifest import StageName

from .conftest import LATENT, LOW_RES, constant, write_manifest

BACKENDS = ["onnxruntime", "openvino"]


def rewritten(folder: Path, stage: StageName, output: str, *last: onnx.NodeProto) -> Path:
    """Append nodes that compute `output` of a stage from what it was before, named `before`."""
    bundle = open_bundle(folder)
    path = bundle.graph_path(stage)
    proto = onnx.load(path)
    for node in proto.graph.node:
        names = [
            [{output: "before"}.get(each, each) for each in part]
            for part in (node.input, node.output)
        ]
        del node.input[:], node.output[:]
        node.input.extend(names[0])
        node.output.extend(names[1])
    proto.graph.node.extend(last)
    proto.graph.initializer.extend(
        [constant("nan", np.nan), constant("inf", np.inf), constant("nil", 0)]
    )
    # The declared shape stays, so that only a run of the graph shows the other one.
    onnx.save(proto, path)
    record = msgspec.structs.replace(bundle.manifest.stages[stage], graph=file_ref(path))
    stages = {**bundle.manifest.stages, stage: record}
    write_manifest(folder, msgspec.structs.replace(bundle.manifest, stages=stages))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def image(tmp_path: Path, photo: np.ndarray) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    return path


@pytest.mark.parametrize(
    ("output", "factor"),
    [("low_res_masks", "nan"), ("iou_predictions", "nan"), ("iou_predictions", "inf")],
)
def test_nan(
    output: str, factor: str, toy_copy: Path, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = rewritten(
        toy_copy, "decoder", output, helper.make_node("Add", ["before", factor], [output])
    )
    common = ("--bundle", bundle, "--backend", "onnxruntime", "--json")
    out = image.parent / "out"
    for prompt in (["--points", "9,9"], ["--everything", "--points-per-side", "2"]):
        code, stdout, stderr = run(capsys, image, *prompt, *common, "-o", out)
        assert code == 2
        assert stderr.count("\n") == 1
        assert "decoder on onnxruntime: returned NaN" in stderr
        assert "returned NaN" in json.loads(stdout)["images"][0]["error"]
        assert not out.exists() or not list(out.iterdir())
    code, stdout, stderr = run(capsys, "--selftest", *common)
    assert code == 1
    assert "self-test failed" in stderr
    result = json.loads(stdout)
    assert not result["passed"]
    assert any(each["relative_l2"] is None for each in result["errors"])


SHAPES = [
    ("encoder", "image_embeddings", [1, 128, LATENT * 2, LATENT]),
    ("enhancer", "enhanced_embeddings", [1, 128, LATENT * 2, LATENT]),
    ("decoder", "low_res_masks", [-1, 2, LOW_RES * 2, LOW_RES]),
    ("decoder", "iou_predictions", [-1, 2]),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("stage", "output", "shape"), SHAPES, ids=lambda each: str(each))
def test_shapes(
    backend: str, stage: StageName, output: str, shape: list[int], toy_copy: Path
) -> None:
    pytest.importorskip(backend)
    nodes = [  # a shape that depends on values, so that nothing can tell it when loading
        helper.make_node("Constant", [], ["wanted"], value_ints=shape),
        helper.make_node("ReduceMax", ["before"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "nil"], ["none"]),
        helper.make_node("Cast", ["none"], ["whole"], to=onnx.TensorProto.INT64),
        helper.make_node("Add", ["wanted", "whole"], ["shape"]),
        helper.make_node("Reshape", ["before", "shape"], [output]),
    ]
    bundle = rewritten(toy_copy, stage, output, *nodes)
    with pytest.raises(BackendError, match=output):
        predict(bundle, backend)


def predict(bundle: Path, backend: str) -> None:
    predictor = GleSamPredictor(bundle, backend=backend)
    predictor.set_image(np.zeros((20, 30, 3), np.uint8))
    predictor.predict([[3, 3]], [1])
