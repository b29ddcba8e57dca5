"""The real server loads the repository, and answers with the predictor's masks, bit for bit."""

from __future__ import annotations

import io
import queue
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor
from glesam_runtime.bundle import builtin_bundle_path, open_bundle
from glesam_runtime.rle import decode_rle, encode_rle
from glesam_serving.triton.repository import Wanted, write_repository

from .conftest import Server, triton

pytest.importorskip("pytriton")
http = pytest.importorskip("tritonclient.http")
grpc = pytest.importorskip("tritonclient.grpc")

WANTED = Wanted(False, "onnxruntime", "cpu", 1, 64, True)
BOXES = np.array([[10, 10, 40, 35], [30, 20, 70, 60], [5, 30, 50, 70]], np.float32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("triton")
    write_repository(open_bundle(), folder / "repository", WANTED)
    with triton(folder / "repository", folder, "--load-model", "*") as running:
        yield running


@pytest.fixture(scope="module")
def predictor() -> GleSamPredictor:
    """Return the oracle."""
    return GleSamPredictor(backend="onnxruntime")


def tensor(client: Any, name: str, value: np.ndarray, kind: str) -> Any:
    made = client.InferInput(name, list(value.shape), kind)
    made.set_data_from_numpy(value)
    return made


def ask(
    client: Any, connection: Any, outputs: list[str], model: str = "glesam", **inputs: Any
) -> dict[str, np.ndarray]:
    kinds = {
        "pixels": "UINT8",
        "image": "BYTES",
        "image_id": "BYTES",
        "multimask": "BOOL",
        "point_labels": "FP32",
        "point_coords": "FP32",
        "boxes": "FP32",
    }
    tensors = [tensor(client, name, value, kinds[name]) for name, value in inputs.items()]
    wanted = [client.InferRequestedOutput(name) for name in outputs]
    answer = connection.infer(model, tensors, outputs=wanted)
    return {name: answer.as_numpy(name) for name in outputs}


@pytest.mark.parametrize("client", [http, grpc], ids=["http", "grpc"])
def test_sixteen_at_a_time_bit_for_bit(
    client: Any, server: Server, predictor: GleSamPredictor, picture: Callable[..., np.ndarray]
) -> None:
    address = server.http if client is http else server.grpc

    def one(seed: int) -> dict[str, np.ndarray]:
        connection = client.InferenceServerClient(address)
        outputs = ["masks", "iou_predictions", "low_res_masks", "rle", "size"]
        return ask(client, connection, outputs, pixels=picture(seed), boxes=BOXES)

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(one, range(16)))
    for seed, answer in enumerate(answers):
        predictor.set_image(picture(seed))
        masks, scores, low_res = predictor.predict(box=BOXES)
        assert np.array_equal(answer["masks"].astype(bool), masks)
        assert np.array_equal(answer["iou_predictions"], scores)
        assert np.array_equal(answer["low_res_masks"], low_res)
        size = answer["size"].tolist()
        for own, expected in zip(answer["rle"].reshape(-1), masks.reshape(-1, *size), strict=True):
            rle = {"size": size, "counts": own.decode()}
            assert np.array_equal(decode_rle(rle), expected)


def test_image_files_points_and_kept_embeddings(
    server: Server, predictor: GleSamPredictor, picture: Callable[..., np.ndarray]
) -> None:
    connection = http.InferenceServerClient(server.http)
    file = io.BytesIO()
    Image.fromarray(picture(77)).save(file, "PNG")
    content = np.array([file.getvalue()], np.object_)
    first = ask(http, connection, ["image_id"], image=content)
    points = np.array([[[30, 30], [60, 40]]], np.float32)
    labels = np.array([[1, 0]], np.float32)
    answer = ask(
        http,
        connection,
        ["masks"],
        image_id=first["image_id"],
        point_coords=points,
        point_labels=labels,
        multimask=np.array([False]),
    )
    predictor.set_image(picture(77))
    masks, _, _ = predictor.predict(points, labels, multimask_output=False)
    assert np.array_equal(answer["masks"][0].astype(bool), masks)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "no image; give image, pixels or image_id"),
        ({"image_id": np.array([b"unknown"], np.object_)}, "send the image again"),
        ({"image": np.array([b"no image"], np.object_)}, "image: "),
        ({"pixels": np.zeros((9, 9, 3), np.uint8)}, "no prompt; give"),
    ],
)
def test_wrong_requests_get_one_line(
    inputs: dict[str, np.ndarray], message: str, server: Server
) -> None:
    connection = grpc.InferenceServerClient(server.grpc)
    with pytest.raises(Exception, match=message) as caught:
        ask(grpc, connection, ["masks"], **inputs)
    assert "Traceback" not in str(caught.value)


def test_everything_sends_a_response_for_each_mask(
    server: Server, picture: Callable[..., np.ndarray]
) -> None:
    connection = grpc.InferenceServerClient(server.grpc)
    received: queue.Queue[Any] = queue.Queue()
    connection.start_stream(lambda result, error: received.put(error or result))
    text = np.array([b'{"points_per_side": 4, "pred_iou_thresh": 0}'], np.object_)
    inputs = [
        tensor(grpc, "pixels", picture(5), "UINT8"),
        tensor(grpc, "parameters", text, "BYTES"),
    ]
    connection.async_stream_infer("glesam_everything", inputs, enable_empty_final_response=True)
    found = []
    while True:
        result = received.get(timeout=120)
        assert not isinstance(result, Exception), result
        if result.get_response().parameters["triton_final_response"].bool_param:
            break
        found.append(result)
    connection.stop_stream()
    generator = GleSamMaskGenerator(
        GleSamPredictor(backend="onnxruntime"), points_per_side=4, pred_iou_thresh=0
    )
    expected = generator.generate(picture(5))
    assert len(expected) > 1
    assert len(found) == len(expected)
    for result, mask in zip(found, expected, strict=True):
        counts = encode_rle(mask["segmentation"])["counts"]
        assert result.as_numpy("rle")[0].decode() == counts
        assert result.as_numpy("area")[0] == mask["area"]


def test_health_metrics_unload_and_load(server: Server, picture: Callable[..., np.ndarray]) -> None:
    connection = http.InferenceServerClient(server.http)
    assert connection.is_server_live()
    assert connection.is_model_ready("glesam")
    with urllib.request.urlopen(f"http://{server.metrics}/metrics") as answer:
        assert 'nv_inference_request_success{model="glesam"' in answer.read().decode()
    connection.unload_model("glesam")
    assert not connection.is_model_ready("glesam")
    connection.load_model("glesam")
    ask(http, connection, ["masks"], pixels=picture(1), boxes=BOXES)


def test_stages_are_called_inside_the_server(
    tmp_path: Path, predictor: GleSamPredictor, picture: Callable[..., np.ndarray]
) -> None:
    """The server has no ONNX Runtime backend here, so models in Python stand in for the graphs."""
    repository = tmp_path / "repository"
    write_repository(open_bundle(), repository, Wanted(True, "onnxruntime", "cpu", 1, 64, True))
    for stage in ("encoder", "enhancer", "decoder"):
        base = repository / f"glesam_{stage}"
        text = (base / "config.pbtxt").read_text()
        assert 'backend: "onnxruntime"' in text
        text = text.replace('backend: "onnxruntime"', 'backend: "python"')
        text = text.replace('default_model_filename: "model.onnx"', "")
        (base / "config.pbtxt").write_text(text)
        (base / "1" / "model.py").write_text(STAND_IN.format(stage=stage))
    with triton(repository, tmp_path, "--load-model", "*") as running:
        connection = http.InferenceServerClient(running.http)
        for seed in (3, 4):
            answer = ask(http, connection, ["masks"], pixels=picture(seed), boxes=BOXES)
            predictor.set_image(picture(seed))
            masks, _, _ = predictor.predict(box=BOXES)
            assert np.array_equal(answer["masks"].astype(bool), masks)
        with urllib.request.urlopen(f"http://{running.metrics}/metrics") as metrics:
            text = metrics.read().decode()
        assert 'nv_inference_request_success{model="glesam_decoder",version="1"} 2' in text


def test_second_bundle_becomes_version_two(tmp_path: Path, picture: Callable[..., Any]) -> None:
    import shutil

    repository, other = tmp_path / "repository", tmp_path / "other"
    shutil.copytree(builtin_bundle_path(), other)
    text = (other / "manifest.json").read_text()
    (other / "manifest.json").write_text(text.replace('"weights": "', '"weights": "again, '))
    assert write_repository(open_bundle(), repository, WANTED) == 1
    assert write_repository(open_bundle(other), repository, WANTED) == 2
    with triton(repository, tmp_path, "--load-model", "glesam") as running:
        connection = http.InferenceServerClient(running.http)
        assert connection.is_model_ready("glesam", "1")
        assert connection.is_model_ready("glesam", "2")


STAND_IN = """
import numpy as np
import triton_python_backend_utils as utils
from glesam_runtime.bundle import open_bundle
from glesam_runtime.engine_selection import select_engine


class TritonPythonModel:
    def initialize(self, arguments):
        self.engine = select_engine(open_bundle(), "onnxruntime", "cpu", ("{stage}",), None).engine

    def execute(self, requests):
        answers = []
        for request in requests:
            inputs = {{tensor.name(): tensor.as_numpy() for tensor in request.inputs()}}
            outputs = self.engine.run("{stage}", inputs)
            answers.append(utils.InferenceResponse(
                [utils.Tensor(name, self.engine.to_host(v)) for name, v in outputs.items()]))
        return answers
"""
