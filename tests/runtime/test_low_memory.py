"""One large stage is in memory at a time, and mapped weights are given back."""

from __future__ import annotations

import gc
import json
import mmap
import re
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from glesam_runtime import (
    BackendError,
    EngineOptions,
    GleSamPredictor,
    backends,
    cli,
    open_bundle,
    sample_image,
    segment_many,
)
from glesam_runtime.backends import openvino as openvino_backend
from glesam_runtime.backends.loading import load_engine, module_of
from glesam_runtime.backends.mapped_file import drop_pages, pages_given_back
from glesam_runtime.demo import write_sample
from glesam_runtime.engine_libraries import openvino_core

LOW = EngineOptions(low_memory=True)
ENGINES = pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's list of mappings")


@ENGINES
def test_masks_are_those_of_all_stages_together(engine: str) -> None:
    """On nano, whose stages have weights; a second image loads the encoder again."""
    usual = GleSamPredictor(backend=engine)
    low = GleSamPredictor(backend=engine, options=LOW)
    for image in (sample_image(), sample_image()[::-1].copy()):
        usual.set_image(image)
        low.set_image(image)
        for point in ([[200, 150]], [[90, 60]]):
            for expected, found in zip(
                usual.predict(point, [1]), low.predict(point, [1]), strict=True
            ):
                np.testing.assert_array_equal(found, expected)


@ENGINES
def test_one_large_stage_is_held(
    engine: str, toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = module_of(backends.BACKENDS[engine])
    load, order, alive = module.load, [], weakref.WeakValueDictionary[str, Any]()

    def noted(bundle: Any, device: Any, stages: Any, options: Any) -> Any:
        gc.collect()
        assert set(alive) <= {"decoder"}, "the stage before was not freed first"
        order.extend(stages)
        alive[stages[0]] = loaded = load(bundle, device, stages, options)
        return loaded

    monkeypatch.setattr(module, "load", noted)
    predictor = GleSamPredictor(toy_bundle, backend=engine, options=LOW)
    assert order == ["decoder"]
    image = np.zeros((48, 64, 3), np.uint8)
    for _ in range(2):
        predictor.set_image(image)
        predictor.predict([[9, 9]], [1])
        predictor.predict([[20, 20]], [1])
    assert order == ["decoder", *["encoder", "enhancer"] * 2]


def test_without_the_enhancer_the_encoder_stays(toy_bundle: Path) -> None:
    predictor = GleSamPredictor(toy_bundle, backend="openvino", options=LOW, enhance=False)
    predictor.set_image(np.zeros((48, 64, 3), np.uint8))
    with pytest.raises(BackendError, match="the enhancer was not loaded"):
        predictor.engine.run("enhancer", {})


def test_shares_take_turns(toy_bundle: Path) -> None:
    options = EngineOptions(low_memory=True, streams=2)
    predictor = GleSamPredictor(toy_bundle, backend="onnxruntime", options=options)
    rng = np.random.default_rng(0)
    asked = [
        (
            rng.integers(0, 256, (48, 64, 3), np.uint8),
            {"point_coords": [[9, 9]], "point_labels": [1]},
        )
        for _ in range(6)
    ]
    usual = GleSamPredictor(toy_bundle, backend="onnxruntime")
    for low, expected in zip(
        segment_many(predictor, asked, streams=2), segment_many(usual, asked), strict=True
    ):
        np.testing.assert_array_equal(low[2], expected[2])  # type: ignore[index]


def test_the_stages_compute_in_the_precision_of_the_whole_bundle(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        openvino_backend, "_precision_of", lambda _, stages, __: asked.append(stages) or "fp32"
    )
    load_engine(open_bundle(toy_bundle), "openvino", options=LOW)
    assert [list(stages) for stages in asked] == [["encoder", "enhancer", "decoder"]]


def test_glesam_run_and_auto(tmp_path: Path) -> None:
    sample = write_sample(tmp_path)
    words = [str(sample.image), "--prompts", str(sample.prompts), "--json", "--no-files"]
    masks = []
    for more in ([], ["--low-memory"]):
        done = CliRunner().invoke(cli.app, [*words, *more])
        assert done.exit_code == 0, done.stderr
        masks.append([mask["rle"] for mask in json.loads(done.stdout)["images"][0]["masks"]])
    assert masks[0] == masks[1]


def resident(path: Path) -> int:
    """Return the bytes of a file's mappings that are in this process's memory, by the kernel."""
    found, counted = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counted = line.endswith(str(path))
        elif counted and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@linux
def test_pages_are_dropped_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "weights of a model.data"
    content = np.random.default_rng(0).bytes(4 << 20)
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert mapped[:] == content
        assert resident(path) == len(content)
        assert drop_pages(path) == len(content)
        assert resident(path) == 0
        assert mapped[:] == content


@linux
def test_pages_that_can_be_written_stay(tmp_path: Path) -> None:
    """A private copy of a page has no other place."""
    path = tmp_path / "weights.data"
    path.write_bytes(bytes(1 << 16))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        mapped[:4] = b"mine"
        assert drop_pages(path) == 0
        assert mapped[:4] == b"mine"


@linux
def test_openvino_keeps_one_copy_of_external_weights(tmp_path: Path) -> None:
    """What OpenVINO maps is dropped while it compiles, and its results stay the same."""
    weights = np.random.default_rng(0).normal(size=(1024, 4096)).astype(np.float32) / 32
    path = tmp_path / "graph.onnx"
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [8, 1024])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [8, 4096])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    model.ir_version = 9
    data = tmp_path / "graph.onnx.data"
    onnx.save_model(model, path, save_as_external_data=True, location=data.name)
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    x = np.random.default_rng(1).normal(size=(8, 1024)).astype(np.float32)
    plain = openvino_core().compile_model(path, "CPU", hint)
    expected = plain(x)[0]
    assert resident(data) > weights.nbytes / 2, "OpenVINO maps the file and keeps it mapped"
    with pages_given_back(data):
        compiled = openvino_core().compile_model(path, "CPU", hint)
    assert resident(data) < weights.nbytes / 16
    np.testing.assert_array_equal(compiled(x)[0], expected)
    np.testing.assert_array_equal(plain(x)[0], expected)


def test_the_thread_ends_with_the_block_and_its_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), pages_given_back(tmp_path / "none"):
        raise KeyError
    assert "glesam-pages" not in {thread.name for thread in threading.enumerate()}
