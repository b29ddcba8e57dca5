"""CVAT's own SDK and agent segment with glesam-serve through examples/cvat (`make test-cvat`).

No CVAT server runs here: its images have no place without a container engine. What runs is the code
of CVAT that calls such a function: the loader of `cvat-cli`, the agent's driver of interactors with
its cache, the driver of `cvat-cli task auto-annotate`, and the SDK of Nuclio's Python runtime.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor, read_image

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
FUNCTION = ROOT / "examples" / "cvat" / "function.py"
NUCLIO = ROOT / "examples" / "cvat" / "nuclio_main.py"
SAMPLE = Path(str(files("glesam_runtime") / "sample" / "sample.jpg"))
POSITIVE, NEGATIVE, BOX = [[245.0, 300.0]], [[290.0, 355.0]], [[350.0, 213.0], [441.0, 323.0]]
PROMPTS = [
    {"pos_points": POSITIVE, "neg_points": [], "obj_bbox": []},
    {"pos_points": POSITIVE, "neg_points": NEGATIVE, "obj_bbox": []},
    {"pos_points": [], "neg_points": [], "obj_bbox": BOX},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [sys.executable, "-c", "from glesam_serving.cli import main; main()"]
    command += ["--port", str(port), "--backend", "onnxruntime"]
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            end = time.monotonic() + 120
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                try:
                    httpx.get(f"{address}/health/ready", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield address
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def predictor() -> GleSamPredictor:
    made = GleSamPredictor(backend="onnxruntime")
    made.set_image(np.asarray(Image.open(SAMPLE).convert("RGB")))
    return made


def expected(predictor: GleSamPredictor, prompt: dict[str, Any]) -> tuple[np.ndarray, float]:
    points = [*prompt["pos_points"], *prompt["neg_points"]]
    labels = [1] * len(prompt["pos_points"]) + [0] * len(prompt["neg_points"])
    box = np.ravel(prompt["obj_bbox"]) if prompt["obj_bbox"] else None
    masks, scores, _ = predictor.predict(
        points or None, labels or None, box, multimask_output=False
    )
    return masks[0], float(scores[0])


def load(**parameters: object) -> Any:
    """Load the function as `cvat-cli --function-file ... -p NAME=TYPE:VALUE` does."""
    from cvat_cli._internal.common import FunctionLoader

    return FunctionLoader(None, FUNCTION, parameters).load()


def decoded(points: list[float], size: tuple[int, int]) -> np.ndarray:
    """Decode CVAT's mask: run lengths, then the box that they fill."""
    *runs, x0, y0, x1, y1 = map(int, points)
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(y1 - y0 + 1, x1 - x0 + 1)
    mask = np.zeros(size, bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = inside
    return mask


def test_the_agent_s_masks_are_the_predictor_s(server: str, predictor: GleSamPredictor) -> None:
    from cvat_cli._internal import agent_driver
    from cvat_cli._internal.agent_driver_interaction import AgentInteractionFunctionDriver

    loaded: list[int] = []

    class Driver(AgentInteractionFunctionDriver):
        """CVAT's driver, with a picture that is here instead of on a CVAT server."""

        def _get_sample_from_ar_params(self, ar_params: Any) -> Any:
            loaded.append(ar_params["frame"])
            image = SimpleNamespace(load_image=lambda: Image.open(SAMPLE))
            return SimpleNamespace(media=image), []

    function = load(server=server)
    here = SimpleNamespace(submit=lambda call, *arguments: call(*arguments), result=lambda x: x)
    agent_driver.set_worker_current_function(function)
    Driver.init_worker(None)
    driver = Driver(None, here, function.spec)
    fields = driver.get_remote_function_fields(function.spec)
    assert fields == {"min_pos_points": 0, "min_neg_points": 0, "startswith_box_optional": True}
    for prompt in PROMPTS:
        asked = {"type": "interact", "task": 1, "frame": 7, **prompt}
        (shape,) = driver.calculate_result_for_ar(asked, None)["shapes"]
        mask, score = expected(predictor, prompt)
        assert shape["type"] == "mask"
        assert np.array_equal(decoded(shape["points"], mask.shape), mask)
        assert float(shape["attributes"][0]["value"]) == pytest.approx(min(score, 1), abs=1e-5)
    assert loaded == [7]  # CVAT keeps what preprocess_image returned


def test_auto_annotation_finds_what_the_generator_finds(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cvat_sdk.auto_annotation as cvataa
    from cvat_sdk import models
    from cvat_sdk.auto_annotation import driver

    label = models.Label(id=55, name="coin", type="mask", color="#aabbcc", attributes=[])
    object.__setattr__(label, "sublabels", [])
    media = SimpleNamespace(load_image=lambda: Image.open(SAMPLE))
    sample = SimpleNamespace(frame_name="coins.jpg", frame_index=3, media=media)
    task = SimpleNamespace(labels=[label], samples=[sample])
    monkeypatch.setattr(driver, "TaskDataset", lambda *_, **__: task)
    sent: list[Any] = []

    def update(_: int, labeled_data_request: Any) -> None:
        sent.append(labeled_data_request)

    client = SimpleNamespace(
        logger=logging.getLogger("cvat"),
        tasks=SimpleNamespace(api=SimpleNamespace(update_annotations=update)),
    )
    function = load(kind="detector", server=server, label="coin", points_per_side=6)
    cvataa.annotate_task(client, 9, function, clear_existing=True)
    shapes = sent[0].shapes
    assert {(shape.label_id, shape.frame, shape.source) for shape in shapes} == {(55, 3, "auto")}

    image = read_image(SAMPLE)
    records = GleSamMaskGenerator(
        GleSamPredictor(backend="onnxruntime"), points_per_side=6
    ).generate(image)
    ours = sorted(decoded(shape.points, image.shape[:2]).tobytes() for shape in shapes)
    assert ours == sorted(record["segmentation"].tobytes() for record in records)
    label.type = "any"  # with a label of masks, CVAT itself refuses to convert them
    with pytest.raises(cvataa.BadFunctionError, match="turn off the conversion"):
        cvataa.annotate_task(client, 9, function, clear_existing=True, conv_mask_to_poly=True)


def test_wrong_parameters_are_refused() -> None:
    import cvat_sdk.auto_annotation as cvataa

    with pytest.raises(cvataa.BadFunctionError, match="kind 'tracker': must be interactor"):
        load(kind="tracker")
    with pytest.raises(cvataa.BadFunctionError, match="points_per_side: only a detector"):
        load(points_per_side=8)
    with pytest.raises(cvataa.BadFunctionError, match=r"127\.0\.0\.1:9"):
        load(server="http://127.0.0.1:9").preprocess_image(None, Image.open(SAMPLE))


@pytest.fixture
def nuclio(server: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """Return the module and a context, initialised as Nuclio's wrapper does."""
    import nuclio_sdk

    monkeypatch.setenv("GLESAM_SERVER", server)
    spec = importlib.util.spec_from_file_location("nuclio_main", NUCLIO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = nuclio_sdk.Context(logger=logging.getLogger("nuclio"))
    module.init_context(context)
    return module, context


def call(nuclio: tuple[Any, Any], body: bytes) -> tuple[int, dict[str, Any]]:
    """Send a body through Nuclio's classes for events and responses."""
    import nuclio_sdk

    module, context = nuclio
    event = nuclio_sdk.Event(body=body, content_type="application/json", method="POST")
    answer = nuclio_sdk.Response.from_entrypoint_output(json.dumps, module.handler(context, event))
    assert answer["content_type"] == "application/json"
    return answer["status_code"], json.loads(answer["body"])


def test_nuclio_s_masks_are_the_predictor_s(
    nuclio: tuple[Any, Any], predictor: GleSamPredictor
) -> None:
    picture = base64.b64encode(SAMPLE.read_bytes()).decode()
    for prompt in PROMPTS:
        status, answer = call(nuclio, json.dumps({"image": picture, **prompt}).encode())
        assert status == 200
        assert np.array_equal(np.asarray(answer["mask"], bool), expected(predictor, prompt)[0])


def test_nuclio_refuses_what_it_cannot_use(nuclio: tuple[Any, Any]) -> None:
    picture = base64.b64encode(SAMPLE.read_bytes()).decode()
    for body, words in (
        (b"no json", "the request cannot be used"),
        (b"{}", "'image'"),
        (json.dumps({"image": "%%"}).encode(), "the request cannot be used"),
        (json.dumps({"image": picture}).encode(), "no prompt"),
        (json.dumps({"image": base64.b64encode(b"text").decode()}).encode(), ""),
    ):
        status, answer = call(nuclio, body)
        assert status == 400
        assert words in answer["error"]


def test_the_environment_is_cvat_s_own() -> None:
    """Run `cvat-cli` itself, so that a change of its options is seen."""
    program = Path(sys.executable).with_name("cvat-cli")
    done = subprocess.run(
        [program, "function", "run-agent", "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        check=True,
    )
    assert "--function-file" in done.stdout
    assert "--function-parameter" in done.stdout
