"""Start the server of nvidia-pytriton on a repository. Run by `make test-triton`."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            made = stack.enter_context(socket.socket())
            made.bind(("127.0.0.1", 0))
            ports.append(made.getsockname()[1])
        return ports


@dataclass(frozen=True)
class Server:
    http: str
    grpc: str
    metrics: str
    log: Path


@contextlib.contextmanager
def triton(repository: Path, folder: Path, *extra: str) -> Iterator[Server]:
    """Run the server on a repository until the block ends."""
    pytriton = pytest.importorskip("pytriton")
    home = Path(pytriton.__file__).parent / "tritonserver"
    backends = folder / "backends"
    shutil.copytree(home / "backends", backends, dirs_exist_ok=True)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, backends / "python" / stub.name)
    ports = free_ports(3)
    libraries = [
        sysconfig.get_config_var("LIBDIR"),
        str(Path(sysconfig.get_path("purelib")) / "nvidia_pytriton.libs"),
    ]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(
            filter(None, [*libraries, os.environ.get("LD_LIBRARY_PATH")])
        ),
        # Triton's Python takes the environment of the first `python` on the path.
        "PATH": os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
    }
    log = folder / "server.log"
    words = [
        str(home / "bin" / "tritonserver"),
        *("--model-repository", str(repository), "--backend-directory", str(backends)),
        *("--http-address", "127.0.0.1", "--http-port", str(ports[0])),
        *("--grpc-address", "127.0.0.1", "--grpc-port", str(ports[1])),
        *("--metrics-address", "127.0.0.1", "--metrics-port", str(ports[2])),
        *("--model-control-mode", "explicit", "--exit-timeout-secs", "5"),
        *extra,
    ]
    with log.open("w") as file:
        process = subprocess.Popen(words, stdout=file, stderr=file, env=environment)
    server = Server(*(f"127.0.0.1:{port}" for port in ports), log)
    try:
        deadline = time.monotonic() + 120
        while not ready(server):
            assert process.poll() is None, log.read_text()[-6000:]
            assert time.monotonic() < deadline, log.read_text()[-6000:]
            time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def ready(server: Server) -> bool:
    try:
        with urllib.request.urlopen(f"http://{server.http}/v2/health/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="session")
def picture() -> Callable[[int], np.ndarray]:
    def make(seed: int, width: int = 96, height: int = 72) -> np.ndarray:
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        for _ in range(3):
            x, y = rng.integers(0, width - 30), rng.integers(0, height - 24)
            pixels[y : y + 20, x : x + 26] = rng.integers(120, 255, 3)
        return pixels

    return make
