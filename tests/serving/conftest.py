"""Start servers: one in this process for most tests, and processes of their own for the others."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from glesam_runtime import GleSamPredictor
from glesam_serving.server.app import create_app
from glesam_serving.server.model import Model
from glesam_serving.server.protocol import make_protocol
from glesam_serving.settings import ServerOptions


@pytest.fixture(scope="session")
def predictor() -> GleSamPredictor:
    """Return the oracle: a predictor of its own, on the engine of the servers in this process."""
    return GleSamPredictor(backend="onnxruntime")


def picture(seed: int, width: int = 96, height: int = 72) -> np.ndarray:
    """Return a picture of bright shapes on a dark ground, uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
    for _ in range(3):
        x, y = rng.integers(0, width - 30), rng.integers(0, height - 24)
        pixels[y : y + 20, x : x + 26] = rng.integers(120, 255, 3)
    return pixels


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def make_picture() -> Callable[..., np.ndarray]:
    return picture


@pytest.fixture(scope="session")
def make_png() -> Callable[[np.ndarray], bytes]:
    return png


@dataclass(frozen=True)
class Running:
    """A server in a thread of this process."""

    url: str
    model: Model

    def http(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


@contextlib.contextmanager
def serving(model: Model, options: ServerOptions) -> Iterator[Running]:
    config = uvicorn.Config(
        create_app(model, options),
        http=make_protocol(options.receive_timeout, options.timeout, options.max_connections),
        host="127.0.0.1",
        port=0,
        log_level="error",
        lifespan="on",
        ws="none",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Running(f"http://127.0.0.1:{port}", model)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def start(predictor: GleSamPredictor) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a server with options of `ServerOptions`."""
    with contextlib.ExitStack() as stack:

        def started(*, change: Callable[[Model], None] | None = None, **options: Any) -> Running:
            model = Model(predictor.share(), 1)
            if change is not None:
                change(model)
            return stack.enter_context(serving(model, ServerOptions(**options)))

        yield started


@pytest.fixture(scope="module")
def server(predictor: GleSamPredictor) -> Iterator[Running]:
    """Return a server with the default options, for all tests of a module."""
    with serving(Model(predictor.share(), 1), ServerOptions()) as running:
        yield running


@dataclass(frozen=True)
class Process:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def memory(self) -> int:
        """Return the resident memory in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def spawn() -> Iterator[Callable[..., Process]]:
    """Return a function that runs glesam-serve with arguments, on a free port."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str, port: int = 0) -> Process:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from glesam_serving.cli import main; main()",
                "--port",
                str(port),
                "--backend",
                "onnxruntime",
                *arguments,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), process.communicate()
        return Process(url, process)

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def triton_utils(passed: dict[str, Any], output: object) -> SimpleNamespace:
    """Return what stands for Triton's Python module: it keeps the inputs of a call in `passed`.

    Args:
        passed: gets the tensors of the latest request by name.
        output: every output tensor.
    """

    def request(*, inputs: list[tuple[str, Any]], **_: object) -> Any:
        passed.update(inputs)
        return SimpleNamespace(exec=lambda: SimpleNamespace(has_error=lambda: False))

    return SimpleNamespace(
        Tensor=lambda name, value: (name, value),
        InferenceRequest=request,
        PreferredMemory=lambda *_: None,
        TRITONSERVER_MEMORY_CPU=0,
        get_output_tensor_by_name=lambda *_: SimpleNamespace(as_numpy=lambda: output),
    )
