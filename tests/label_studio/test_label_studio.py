"""Label Studio segments with glesam-serve through examples/label_studio.

`make test-label-studio` installs Label Studio in an environment of its own. The test starts its
server, the backend of the example and glesam-serve, and clicks as an annotator's browser does.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from glesam_runtime import GleSamPredictor, read_image

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[2]
BIN = Path(os.environ.get("LABEL_STUDIO_VENV", ROOT / ".venv-label-studio")) / "bin"
SAMPLE = Path(str(files("glesam_runtime") / "sample" / "sample.jpg"))
EMAIL, PASSWORD = "tester@example.org", "only-for-this-test"
POINTS = [[245, 300], [290, 355]]
BOX = [350, 213, 441, 323]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def running(command: list[str], address: str, log: Path, **environment: str) -> Iterator[str]:
    """Run a server until the context ends; yield its address once it answers."""
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **environment}
        )
    try:
        end = time.monotonic() + 900  # Label Studio makes its database first
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            try:
                if httpx.get(f"{address}/health", timeout=5, follow_redirects=True):
                    break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def token_of(address: str) -> str:
    """Log in as a browser does, and return a personal access token."""
    with httpx.Client(base_url=address, headers={"Referer": address}) as http:
        http.get("/user/login/")
        form = {"email": EMAIL, "password": PASSWORD}
        http.post("/user/login/", data={**form, "csrfmiddlewaretoken": http.cookies["csrftoken"]})
        made = http.post("/api/token/", headers={"X-CSRFToken": http.cookies["csrftoken"]})
        return made.raise_for_status().json()["token"]


@pytest.fixture
def label_studio(tmp_path: Path) -> Iterator[str]:
    data, port = str(tmp_path / "label-studio"), str(free_port())
    command = [str(BIN / "label-studio"), "start", "--no-browser", "--data-dir", data]
    command += ["--internal-host", "127.0.0.1", "--port", port]
    command += ["--username", EMAIL, "--password", PASSWORD, "--log-level", "ERROR"]
    settings = {
        "LABEL_STUDIO_BASE_DATA_DIR": data,
        # Label Studio refuses a backend on its own machine, and the webhook that it makes for it.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
        "ML_TIMEOUT_HEALTH": "60",
        "ML_TIMEOUT_SETUP": "60",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
    }
    log, address = tmp_path / "label-studio.log", f"http://127.0.0.1:{port}"
    with running(command, address, log, **settings) as started:
        yield started


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    port = str(free_port())
    command = [sys.executable, "-c", "from glesam_serving.cli import main; main()"]
    command += ["--port", port, "--backend", "onnxruntime"]
    with running(command, f"http://127.0.0.1:{port}", tmp_path / "server.log") as started:
        yield started


def region(kind: str, size: tuple[int, int], **value: float) -> dict[str, Any]:
    """Return a region as the smart tools send it: x, y, width and height in percent."""
    height, width = size
    of = {"x": width, "width": width, "y": height, "height": height}
    percent = {name: 100 * pixels / of[name] for name, pixels in value.items()}
    return {
        "id": "drawn",
        "from_name": "point" if kind == "keypointlabels" else "box",
        "to_name": "picture",
        "type": kind,
        "origin": "manual",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**percent, "rotation": 0, kind: ["coin"]},
    }


def test_label_studio_s_masks_are_the_predictor_s(
    label_studio: str, server: str, tmp_path: Path
) -> None:
    picture = read_image(SAMPLE)
    size = picture.shape[:2]
    (x, y), (background_x, background_y) = POINTS
    clicked = {**region("keypointlabels", size, x=x, y=y), "is_positive": True}
    outside = region("keypointlabels", size, x=background_x, y=background_y)
    x0, y0, x1, y1 = BOX
    clicks = [
        [clicked],
        [clicked, {**outside, "is_positive": False}],
        [region("rectanglelabels", size, x=x0, y=y0, width=x1 - x0, height=y1 - y0)],
    ]
    (tmp_path / "clicks.json").write_text(json.dumps(clicks))

    token, port = token_of(label_studio), free_port()
    example = [sys.executable, str(ROOT / "examples/label_studio/backend.py")]
    example += ["--label-studio", label_studio, "--server", server, "--port", str(port)]
    log, address = tmp_path / "backend.log", f"http://127.0.0.1:{port}"
    with running(example, address, log, LABEL_STUDIO_API_KEY=token) as backend:
        script = Path(__file__).with_name("annotate.py")
        annotate = [str(BIN / "python"), str(script), label_studio, token, backend, str(SAMPLE)]
        done = subprocess.run(
            [*annotate, str(tmp_path / "clicks.json"), str(tmp_path)],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])

    predictor = GleSamPredictor(backend="onnxruntime")
    predictor.set_image(picture)
    masks, scores = zip(
        *(
            (masks[0], float(scores[0]))
            for masks, scores, _ in (
                predictor.predict(POINTS[:1], [1], multimask_output=False),
                predictor.predict(POINTS, [1, 0], multimask_output=False),
                predictor.predict(box=BOX, multimask_output=False),
            )
        ),
        strict=True,
    )
    assert report["state"] == "CO"  # connected
    assert report["model_version"] == f"glesam-nano-{predictor.bundle.sha256[:12]}"
    assert report["scores"] == list(scores)
    for index, mask in enumerate(masks):
        pixels = np.load(tmp_path / f"decoded{index}.npy")
        assert set(np.unique(pixels)) == {0, 255}
        assert np.array_equal(pixels, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))

    with zipfile.ZipFile(tmp_path / "export.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        exported = [np.asarray(Image.open(io.BytesIO(archive.read(name)))) for name in names]
    assert len(exported) == len(masks)
    for mask in masks:
        assert any(np.array_equal(image > 0, mask) for image in exported)

    assert all("422" in answer["errors"][0] for answer in report["refused"])
    said = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert len(said) == 3
    assert "ellipselabels: cannot be a prompt" in said[0]
    assert f"{address}/elsewhere.png: is not at {label_studio}" in said[1]
    assert "has no region" in said[2]
