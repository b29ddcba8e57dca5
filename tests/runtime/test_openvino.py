"""OpenVINO gives the results of ONNX Runtime, and its errors say what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from msgspec.structs import replace

from glesam_export import emulate
from glesam_runtime import BackendError, GleSamPredictor, open_bundle
from glesam_runtime.backends.base import Engine
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.bundle import Bundle
from glesam_runtime.compare import relative_l2
from glesam_runtime.engine_libraries import openvino_core
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.selftest import run_selftest

if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint
    from glesam_runtime.manifest import PrecisionName

    from ..traced import Traced


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
    with pytest.raises(BackendError, match=r"glesam-runtime\[openvino\]"):
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


def test_precision(toy_bundle: Path, nano_bundle: Path) -> None:
    """Check that the precision is float32 by default, and that bfloat16 changes the numbers."""
    bundle = open_bundle(nano_bundle)

    def loaded(precision: str | None) -> Engine:
        options = EngineOptions(precision=precision)
        return load_engine(bundle, "openvino", stages=["encoder"], options=options)

    with pytest.raises(BackendError, match="precision 'int4': openvino has fp32, bf16, fp16"):
        loaded("int4")
    exact = loaded(None)
    assert exact.describe()["precision"] == "fp32"
    if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with pytest.raises(BackendError, match="precision 'bf16': this CPU does not have it"):
            loaded("bf16")
        return
    rounded = loaded("bf16")
    assert rounded.describe()["precision"] == "bf16"
    image = {"image": np.random.default_rng(0).normal(size=(1, 3, 256, 256)).astype(np.float32)}
    wanted, found = (each.run("encoder", image)["image_embeddings"] for each in (exact, rounded))
    assert 1e-4 < relative_l2(found, wanted) < 2e-2


@pytest.mark.parametrize("typed", ["fp16", "bf16"])
def test_typed_graphs_lose_their_casts(
    typed: PrecisionName, nano_checkpoint: Checkpoint, traced: Traced, tmp_path: Path
) -> None:
    """Check that graphs without their casts still give the values of ONNX Runtime."""
    stage = traced.export_stage(nano_checkpoint, "encoder", typed, 1, tmp_path)
    bundle = open_bundle()
    manifest = replace(bundle.manifest, stages={**bundle.manifest.stages, "encoder": stage})
    made = Bundle(tmp_path, manifest, "")
    engine = load_engine(made, "openvino", stages=["encoder"])
    kinds = {
        node.get_type_name() for node in engine.graphs["encoder"].get_runtime_model().get_ops()
    }
    able = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    computes = "bf16" if typed == "bf16" and "BF16" in able else "fp32"
    assert engine.describe()["precision"] == computes
    assert not any("Softmax" in kind for kind in kinds), "attention is one kernel"
    image = np.random.default_rng(0).normal(size=(1, 3, 256, 256)).astype(np.float32)
    widened = ir.load(tmp_path / "encoder.onnx")
    emulate.to_float32(widened.graph)
    ir.save(widened, tmp_path / "widened.onnx")
    session = onnxruntime.InferenceSession(
        tmp_path / "widened.onnx", providers=["CPUExecutionProvider"]
    )
    (wanted,) = session.run(None, {"image": image})
    found = engine.to_host(engine.run("encoder", {"image": image})["image_embeddings"])
    assert relative_l2(found, wanted) < (2e-2 if typed == "bf16" else 2e-3)


def test_a_share_runs_in_another_thread(toy_bundle: Path) -> None:
    options = EngineOptions(streams=2, threads=2)
    engine = load_engine(open_bundle(toy_bundle), "openvino", stages=["encoder"], options=options)
    images = np.random.default_rng(0).normal(size=(16, 1, 3, 64, 64)).astype(np.float32)

    def run(which: int) -> np.ndarray:
        results = [lanes[which].run("encoder", {"image": image}) for image in images[which::2]]
        return np.concatenate([np.asarray(each["image_embeddings"]) for each in results])

    lanes = (engine, engine.share())
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, (0, 1)))
    for which in (0, 1):
        np.testing.assert_array_equal(found[which], run(which))


def test_compiled_graphs_are_kept(toy_bundle: Path, tmp_path: Path) -> None:
    options = EngineOptions(cache=tmp_path / "kept")
    load_engine(open_bundle(toy_bundle), "openvino", options=options)
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert run_selftest(open_bundle(toy_bundle), "openvino", options=options).passed
