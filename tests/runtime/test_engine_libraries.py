"""Engines report nothing home: no name is looked up, and no file of theirs appears."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace, which watches the system calls, is missing"
)

_WRITING = re.compile(r"O_CREAT|O_WRONLY|O_RDWR")
_QUOTED = re.compile(r'"([^"]*)"')


def watched(
    command: list[str], folder: Path, environment: Mapping[str, str | None]
) -> tuple[list[str], list[str]]:
    """Run a command with a fresh home; return the files it opens to write, and its network calls.

    Args:
        command: what to run.
        folder: an empty folder, where home, cache and trace go.
        environment: what differs from this process's environment; None removes a variable.
    """
    home, trace = folder / "home", folder / "trace"
    home.mkdir()
    changed = {
        "HOME": str(home),
        "XDG_CACHE_HOME": None,
        "CI": None,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environ = {**os.environ, **changed, **environment}
    calls = "trace=socket,connect,sendto,sendmsg,sendmmsg,openat,open,creat,mkdir,rename"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", calls, "-e", "signal=none", "-o", str(trace), *command],
        env={name: value for name, value in environ.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("strace may not watch processes here")
    assert done.returncode == 0, done.stderr
    written, network = [], []
    for line in trace.read_text(errors="replace").splitlines():
        call = line.partition(" ")[2].lstrip()
        if call.startswith(("socket(", "connect(", "send")):
            network.append(call)
        elif call.startswith("openat(") and _WRITING.search(call) and " = -1 " not in call:
            written.append(_QUOTED.findall(call)[0])
    left = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return [*written, *(f"home: {name}" for name in left)], network


@needs_strace
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "auto"])
def test_a_run_reports_nothing(backend: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "glesam_runtime", "--demo", "-o", str(out)]
    written, network = watched(
        [*command, "--backend", backend], tmp_path, {"ORT_DISABLE_TELEMETRY": None}
    )
    assert network == []
    asked_for = (str(out), "/dev/")
    if backend == "auto":  # the result of the golden check
        asked_for += (str(tmp_path / "home/.cache/glesam"), "home: .cache/glesam/checked.json")
    assert [name for name in written if not name.startswith(asked_for)] == []


API = """
import glesam_runtime
for backend in ("onnxruntime", "openvino"):
    glesam_runtime.GleSamPredictor(backend=backend)
import {}
"""


@needs_strace
def test_the_library_reports_nothing_and_hides_nothing(tmp_path: Path) -> None:
    """From Python, and with a later import by the user's own code."""
    command = [sys.executable, "-c", API.format("openvino, onnxruntime, openvino_telemetry")]
    written, network = watched(command, tmp_path, {"ORT_DISABLE_TELEMETRY": None})
    assert network == []
    assert [name for name in written if not name.startswith("/dev/")] == []


@needs_strace
def test_a_value_of_the_users_stays(tmp_path: Path) -> None:
    """The test sees what it is to see: with the reports on, ONNX Runtime leaves its files."""
    command = [sys.executable, "-c", "import glesam_runtime; glesam_runtime.GleSamPredictor()"]
    written, _ = watched(command, tmp_path, {"ORT_DISABLE_TELEMETRY": "0"})
    if not any(".onnxruntime" in name for name in written):
        pytest.skip("this onnxruntime reports nothing")


FREED_ELSEWHERE = """
import os, signal, threading
from glesam_runtime import GleSamPredictor

held = [GleSamPredictor(backend="openvino")]
dropping = threading.Thread(target=held.clear)
dropping.start()
dropping.join()
signal.signal(signal.SIGCHLD, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGCHLD)
older, newer = GleSamPredictor(backend="openvino"), GleSamPredictor(backend="openvino")
del older, newer
os.kill(os.getpid(), signal.SIGCHLD)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_after_openvino_has_gone() -> None:
    """A plugin that another thread frees leaves the main thread without its stack for signals."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", FREED_ELSEWHERE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\nhandled\n"), done.stderr
