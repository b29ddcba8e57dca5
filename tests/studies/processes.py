"""Start the processes that a study compares, and read how much memory they took."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

SERVE = "from glesam_serving.cli import main; main()"
"""What a fresh Python runs to be glesam-serve of this checkout."""

_EMPTY = """
import socket, sys, uvicorn
from fastapi import FastAPI, Request, Response

app, answer = FastAPI(), b'"' + b"x" * int(sys.argv[1]) + b'"'

@app.post("/v1/images/{image_id}/segment")
async def segment(image_id: str, request: Request) -> Response:
    await request.body()
    return Response(answer, media_type="application/json")

listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listening.bind(("127.0.0.1", 0))
listening.listen()
print("http://127.0.0.1:%d" % listening.getsockname()[1], flush=True)
config = uvicorn.Config(app, http="h11", ws="none", log_level="error", access_log=False)
uvicorn.Server(config).run(sockets=[listening])
"""
"""A server whose only route reads the body and answers with a constant."""


class Server:
    """A server process that prints its address as its first line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.url = process.stdout.readline().strip()
        if not urlsplit(self.url).port:
            raise SystemExit(f"error: the server did not start: {process.args}")


@contextmanager
def glesam_serve(*arguments: str) -> Iterator[Server]:
    """Run glesam-serve on a free port."""
    with _running([sys.executable, "-c", SERVE, *arguments, "--port", "0"]) as server:
        yield server


@contextmanager
def empty_server(answer_bytes: int) -> Iterator[Server]:
    """Run a FastAPI server that does nothing, with the path of a click."""
    with _running([sys.executable, "-c", _EMPTY, str(answer_bytes)]) as server:
        yield server


@contextmanager
def _running(command: list[str]) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield Server(process)
    finally:
        process.terminate()
        process.wait()


def peak_memory(process: int) -> int:
    """Return the largest resident memory of a process so far in bytes (Linux)."""
    return _status(process, "VmHWM")


def _status(process: int, name: str) -> int:
    """Return a figure in bytes of /proc/N/status, 0 if the process has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = dict(line.split(":", 1) for line in text.splitlines())
    return int(lines.get(name, "0 kB").split()[0]) * 1024


def _proportional(process: int) -> int:
    """Return the memory of a process in bytes; a page that N processes share counts 1/N."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024


def _family(root: int) -> list[int]:
    """Return a process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in (path.name for path in Path("/proc").iterdir()):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parent = int(stat.rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found, open_ = [], [root]
    while open_:
        found.append(open_.pop())
        open_ += children.get(found[-1], [])
    return found


def chromium_process() -> int:
    """Return the Chromium that this process started last, through Playwright's driver."""
    found = []
    for process in _family(os.getpid()):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
        except OSError:
            continue
        if b"chromium" in command.split(b"\0")[0] and b"--type=" not in command:
            found.append(process)
    return max(found)


class MemoryWatch:
    """Samples the memory of a process and its descendants, and keeps the largest sum."""

    def __init__(self, root: int) -> None:
        self._root, self._done = root, threading.Event()
        self.peak = 0
        """Largest sum of all processes in bytes."""
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.is_set():
            self.peak = max(self.peak, sum(map(_proportional, _family(self._root))))
            time.sleep(0.25)
