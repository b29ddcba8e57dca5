"""Gives a job to a process of its own and waits for the answer."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TypeVar

from glesam_benchmark import jobs
from glesam_runtime import errors
from glesam_runtime.errors import BackendError, GlesamError

T = TypeVar("T")


def run(job: jobs.Job, answer: type[T]) -> T:
    """Do a job elsewhere.

    Raises:
        GlesamError: what the job raised there.
        BackendError: the process ended without an answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, result, told = (Path(folder) / name for name in ("job", "answer", "stderr"))
        question.write_bytes(jobs.encode(job))
        command = [sys.executable, "-m", "glesam_benchmark.worker", str(question), str(result)]
        with (
            told.open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as child,
        ):
            try:
                code = child.wait()
            finally:
                child.kill()  # of one that ended nothing is left; after a Ctrl-C it would go on
        if code or not result.is_file():
            raise BackendError(_explain(code, told.read_text(errors="replace")))
        reply: jobs.Reply = jobs.decode(result.read_bytes(), jobs.Reply)
    if reply.failure is not None:
        kind: type[GlesamError] = getattr(errors, reply.failure.kind)
        raise kind(reply.failure.message)
    found: T = jobs.decode(reply.answer, answer)
    return found


def _explain(code: int, told: str) -> str:
    """Why a process ended, from its exit code and its last words."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; memory may be short" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    lines = told.strip().splitlines() or ["it says nothing"]
    return f"its process ended with exit code {code}: {lines[-1]}"
