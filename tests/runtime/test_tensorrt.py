"""Engines chained on a fake GPU give ONNX Runtime's masks; misfits are one-line errors."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from glesam_runtime import GleSamPredictor, chain
from glesam_runtime.backends.loading import load_engine
from glesam_runtime.bundle import file_ref, open_bundle
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.errors import BackendError, BundleError
from glesam_runtime.manifest import Manifest
from glesam_runtime.selftest import run_selftest

from .conftest import write_manifest
from .fake_tensorrt import BUILD, VERSION, FakeCuda, engine_bundle, install


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """Install a fake GPU of capability 8.9 and both libraries."""
    fake = FakeCuda()
    install(monkeypatch, fake)
    return fake


def image(seed: int, height: int = 40, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("enhance", [True, False])
def test_masks_are_those_of_onnx_runtime(
    enhance: bool, toy_bundle: Path, cuda: FakeCuda, tmp_path: Path
) -> None:
    bundle = engine_bundle(toy_bundle, tmp_path / "engines")
    there = GleSamPredictor(bundle, enhance=enhance)
    here = GleSamPredictor(toy_bundle, enhance=enhance)
    assert there.engine.describe() == {
        "engine": "tensorrt-rtx",
        "version": VERSION,
        "provider": "Fake GPU",
        "device": "cuda:0",
    }
    for seed in range(3):  # buffers are reused, but keep nothing of the previous image
        for predictor in (there, here):
            predictor.set_image(image(seed, 40 + seed))
        for points in (1, 3):
            coords = np.arange(2 * points, dtype=float).reshape(points, 2) * 5
            found, wanted = (
                p.predict(
                    coords, np.ones(points), multimask_output=bool(seed % 2), return_logits=True
                )
                for p in (there, here)
            )
            for a, b in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(a, b)
        boxes = np.array([[1, 1, 20, 20], [5, 5, 30, 30], [2, 8, 9, 30]])
        a, b = (p.predict(box=boxes)[0] for p in (there, here))
        np.testing.assert_array_equal(a, b)


def test_many_prompts_in_calls_that_the_engine_takes(
    toy_bundle: Path, cuda: FakeCuda, tmp_path: Path
) -> None:
    there = GleSamPredictor(engine_bundle(toy_bundle, tmp_path / "engines"))  # built for 4
    here = GleSamPredictor(toy_bundle)
    boxes = [[n, 1, n + 20, 30] for n in range(9)]
    for predictor in (there, here):
        predictor.set_image(image(0))
    cuda.log.clear()
    for a, b in zip(there.predict(box=boxes), here.predict(box=boxes), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert cuda.log.count("execute") == 3
    with pytest.raises(BackendError, match="leave out --streams"):
        there.share()


def test_stages_are_chained_on_the_device(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    predictor = GleSamPredictor(engine_bundle(toy_bundle, tmp_path / "engines"))
    allocated = set(cuda.memory)
    cuda.log.clear()
    predictor.set_image(image(0))
    assert cuda.log == ["upload", "execute", "execute"]  # the image, encoder, enhancer
    cuda.log.clear()
    predictor.predict(np.array([[3, 4]]), np.array([1]))
    prompts, results = 4, 2
    assert cuda.log == ["upload"] * prompts + ["execute"] + ["download"] * results
    assert set(cuda.memory) == allocated


def test_two_images_in_a_row_do_not_mix(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    """Check that the second upload waits for the first, as nothing else waits in between."""
    engine = load_engine(open_bundle(engine_bundle(toy_bundle, tmp_path / "engines")), "tensorrt")
    reference = load_engine(open_bundle(toy_bundle), "onnxruntime")
    first, second = (
        np.random.default_rng(seed).normal(size=(1, 3, 64, 64)).astype(np.float32)
        for seed in (0, 1)
    )
    encoded = engine.run("encoder", {"image": first})
    enhanced = engine.run("enhancer", encoded)
    engine.run("encoder", {"image": second})
    found = engine.to_host(enhanced["enhanced_embeddings"])
    wanted = reference.run("enhancer", reference.run("encoder", {"image": first}))
    np.testing.assert_array_equal(found, reference.to_host(wanted["enhanced_embeddings"]))
    with pytest.raises(BackendError, match="encoder has run again"):
        engine.to_host(encoded["image_embeddings"])
    with pytest.raises(BackendError, match="another engine"):
        engine.run("enhancer", reference.run("encoder", {"image": first}))


def test_memory_goes_when_the_engine_goes(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    engine = load_engine(open_bundle(engine_bundle(toy_bundle, tmp_path / "engines")), "tensorrt")
    assert cuda.memory
    del engine
    assert not cuda.memory
    assert cuda.log[-1] == "destroy"  # the stream, last


@pytest.mark.parametrize("family", ["tensorrt", "tensorrt-rtx"])
def test_cuda_graphs(family: str, toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    """TensorRT's stages are captured and replayed; TensorRT-RTX captures its own."""
    version = VERSION if family == "tensorrt-rtx" else "11.4.0.1"
    build = replace(BUILD, version=version)
    bundle = engine_bundle(toy_bundle, tmp_path / "engines", build, family)
    graphed = GleSamPredictor(bundle, options=EngineOptions(cuda_graphs=True))
    plain = GleSamPredictor(toy_bundle)
    for seed in range(3):
        cuda.log.clear()
        for predictor in (graphed, plain):
            predictor.set_image(image(seed))
        np.testing.assert_array_equal(graphed.get_image_embedding(), plain.get_image_embedding())
        replayed = family == "tensorrt" and seed > 0
        assert cuda.log.count("graph") == (2 if replayed else 0)
    words = r"onnxruntime does not support --cuda-graphs; .*: tensorrt \(for compiled bundles\)"
    with pytest.raises(BackendError, match=words):
        GleSamPredictor(toy_bundle, options=EngineOptions(cuda_graphs=True))


def test_options_of_other_backends_are_refused(
    toy_bundle: Path, cuda: FakeCuda, tmp_path: Path
) -> None:
    bundle = engine_bundle(toy_bundle, tmp_path / "engines")
    words = r"tensorrt does not support --precision; leave it out, .*openvino \(for ONNX bundles\)"
    with pytest.raises(BackendError, match=words):
        GleSamPredictor(bundle, options=EngineOptions(precision="fp16"))


def test_selftest_judges_the_engines(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    assert run_selftest(open_bundle(engine_bundle(toy_bundle, tmp_path / "engines"))).passed


def test_engines_without_weights_get_them(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    build = replace(BUILD, stripped=True, refittable=True)
    bundle = open_bundle(engine_bundle(toy_bundle, tmp_path / "engines", build))
    assert run_selftest(bundle).passed


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((5, 2), "B is 5, but the engine was built for 1 to 4; give at most 4"),
        ((2, 6), "P is 6, but the engine was built for 1 to 5"),
    ],
)
def test_a_request_past_the_profile(
    shape: tuple[int, int], words: str, toy_bundle: Path, cuda: FakeCuda, tmp_path: Path
) -> None:
    prompts, points = shape
    bundle = open_bundle(engine_bundle(toy_bundle, tmp_path / "engines"))
    engine = load_engine(bundle, "tensorrt")
    tensors = {
        "image_embeddings": np.zeros((1, 256, 4, 4), np.float32),
        "point_coords": np.ones((prompts, points, 2), np.float32),
        "point_labels": np.ones((prompts, points), np.float32),
        "mask_input": np.zeros((prompts, 1, 16, 16), np.float32),
        "has_mask_input": np.zeros(1, np.float32),
    }
    with pytest.raises(BackendError, match=words) as failure:
        engine.run("decoder", tensors)
    assert "--profile" in str(failure.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"version": "1.6.0.1"},
            "need tensorrt-rtx 1.6.0.1, 1.7.1.116 is installed; glesam-export",
        ),
        ({"system": "windows-x86_64"}, "were built on windows-x86_64, this is"),
        ({"compute_capabilities": ("7.5",)}, "Fake GPU with 8.9; .*--compute-capability 8.9"),
    ],
)
def test_an_engine_for_another_machine(
    change: dict[str, Any], words: str, toy_bundle: Path, cuda: FakeCuda, tmp_path: Path
) -> None:
    bundle = engine_bundle(toy_bundle, tmp_path / "engines", replace(BUILD, **change))
    with pytest.raises(BackendError, match=words):
        GleSamPredictor(bundle)


def test_no_library(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(BackendError, match=r"pip install 'glesam-runtime\[rtx\]'"):
        GleSamPredictor(engine_bundle(toy_bundle, tmp_path / "engines"))


@pytest.mark.parametrize(
    ("device", "count", "words"),
    [
        (None, 0, "no NVIDIA GPU can be used here .*ONNX bundle"),
        ("cuda:3", 2, "'cuda:3' does not exist; available are cuda:0, cuda:1"),
        ("cpu", 1, "engines run on cuda or cuda:N"),
    ],
)
def test_no_such_device(
    device: str | None, count: int, words: str, toy_bundle: Path, cuda: FakeCuda, tmp_path: Path
) -> None:
    cuda.count = count
    with pytest.raises(BackendError, match=words):
        GleSamPredictor(engine_bundle(toy_bundle, tmp_path / "engines"), device=device)


def test_a_truncated_engine(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    """Check that the hash reveals it, and that the library refuses it if the hash fits."""
    folder = engine_bundle(toy_bundle, tmp_path / "engines")
    path = folder / "encoder.engine"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BundleError, match="100 bytes, the manifest says"):
        GleSamPredictor(folder)
    manifest = open_manifest(folder)
    stages = manifest.stages
    stages["encoder"] = replace(stages["encoder"], graph=file_ref(path))
    write_manifest(folder, manifest)
    with pytest.raises(BackendError, match=r"cannot load it: deserialization failed"):
        GleSamPredictor(folder)


def open_manifest(folder: Path) -> Manifest:
    from glesam_runtime import manifest_file

    raw = (folder / "manifest.json").read_bytes()
    return manifest_file.parse(raw, str(folder))


def test_the_wrong_backend(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    engines = engine_bundle(toy_bundle, tmp_path / "engines")
    with pytest.raises(BackendError, match="holds tensorrt-rtx engines, which onnxruntime cannot"):
        GleSamPredictor(engines, backend="onnxruntime")
    with pytest.raises(BackendError, match=r"an ONNX bundle; compile it with glesam-export trt"):
        GleSamPredictor(toy_bundle, backend="tensorrt")


def test_an_engine_with_other_tensors(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    folder = engine_bundle(toy_bundle, tmp_path / "engines")
    shutil.copyfile(folder / "enhancer.engine", folder / "encoder.engine")
    manifest = open_manifest(folder)
    manifest.stages["encoder"] = replace(
        manifest.stages["encoder"], graph=file_ref(folder / "encoder.engine")
    )
    write_manifest(folder, manifest)
    with pytest.raises(BackendError, match=r"tensors are .*, the manifest says image, image_emb"):
        GleSamPredictor(folder)


def test_an_unloaded_stage(toy_bundle: Path, cuda: FakeCuda, tmp_path: Path) -> None:
    bundle = open_bundle(engine_bundle(toy_bundle, tmp_path / "engines"))
    engine = load_engine(bundle, "tensorrt", stages=["encoder"])
    with pytest.raises(BackendError, match="enhancer was not loaded"):
        chain.enhance(engine, bundle.manifest, {"image_embeddings": np.zeros((1, 256, 4, 4), "f4")})
