"""OpenVINO gives what ONNX Runtime gives, and says what is wrong when it cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from glesam_runtime import BackendError, GleSamPredictor, open_bundle
from glesam_runtime.backends import load_engine
from glesam_runtime.bundle import Bundle
from glesam_runtime.selftest import run_selftest


def test_the_built_in_bundle_passes_its_gates() -> None:
    result = run_selftest(open_bundle(), "openvino")
    assert result.passed, result.failures
    assert result.gate.stage_relative_l2 == 1e-4
    assert result.engine["engine"] == "openvino"
    assert result.engine["device"] == "cpu"


@pytest.mark.parametrize("batch", [1, 3, "dynamic"])
def test_it_agrees_with_onnxruntime(
    batch: int | str, tmp_path: Path, make_toy_bundle: Callable[..., Path], photo: np.ndarray
) -> None:
    bundle = make_toy_bundle(tmp_path / "b", batch)
    given = [[60, 40], [10, 20]], [1, 0]
    found = []
    for backend in ("openvino", "onnxruntime"):
        predictor = GleSamPredictor(bundle, backend=backend)
        predictor.set_image(photo)
        found.append((predictor.get_image_embedding(), predictor.predict(*given)[2]))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_results_stay_when_the_graph_runs_again(toy_bundle: Path) -> None:
    engine = load_engine(open_bundle(toy_bundle), "openvino", stages=["encoder"])
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 1, 3, 64, 64)).astype(np.float32)
    kept = engine.run("encoder", {"image": first})["image_embeddings"]
    before = engine.to_host(kept).copy()
    engine.run("encoder", {"image": second})
    np.testing.assert_array_equal(engine.to_host(kept), before)


def test_what_it_cannot_do_is_told(
    toy_bundle: Path, toy_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = open_bundle(toy_bundle)
    with pytest.raises(BackendError, match="runs on cpu"):
        load_engine(bundle, "openvino", "cuda")
    engine = load_engine(bundle, "openvino", stages=["encoder"])
    with pytest.raises(BackendError, match="decoder was not loaded"):
        engine.run("decoder", {})
    with pytest.raises(BackendError, match="failed in the encoder"):
        engine.run("encoder", {"image": np.zeros((1, 5, 7), np.float32)})
    path = toy_copy / "encoder.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(BackendError, match=r"encoder\.onnx: openvino cannot load it"):
        load_engine(Bundle(toy_copy, bundle.manifest, ""), "openvino")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"glesam-deploy\[openvino\]"):
        load_engine(bundle, "openvino")


def test_a_graph_that_is_not_the_manifests_is_refused(toy_bundle: Path) -> None:
    bundle = open_bundle(toy_bundle)
    stages = bundle.manifest.stages
    encoder = stages["encoder"]
    wide = replace(encoder.inputs[0], shape=(1, 3, 64, 128))
    named = replace(encoder.outputs[0], name="features")
    for altered, told in (
        (replace(encoder, inputs=(wide,)), r"image is .*the manifest says float32 \[1, 3, 64, 128"),
        (replace(encoder, outputs=(named,)), "outputs are image_embeddings, the manifest says fea"),
    ):
        manifest = replace(bundle.manifest, stages={**stages, "encoder": altered})
        with pytest.raises(BackendError, match=rf"encoder\.onnx: {told}"):
            load_engine(Bundle(bundle.path, manifest, ""), "openvino", stages=["encoder"])
