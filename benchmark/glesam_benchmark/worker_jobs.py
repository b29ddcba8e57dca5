"""Define the jobs of worker processes and their answers; `run_job` starts a process."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec

from glesam_benchmark.contenders import Runner
from glesam_benchmark.growth import Growth
from glesam_benchmark.profile import Profile
from glesam_benchmark.timing import ContenderRun
from glesam_export.weight_options import WeightOptions
from glesam_runtime import errors
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import BackendError, GlesamError
from glesam_runtime.manifest import StageName


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Time a contender. The answer is a `ContenderRun`; its masks go to a file."""

    bundle: str
    runner: Runner
    rounds: int
    masks: str
    """Path of the .npy file for the first prompt's logits."""


class MeasureMachine(msgspec.Struct, frozen=True, tag="machine"):
    """Measure matrix rates and count the model's operations. The answer is a `MachineRates`."""

    preset: str
    unet: str
    threads: int | None
    side: int
    """Side of the square matrices."""


class MachineRates(msgspec.Struct, frozen=True):
    """Operations per second by precision, and operations of the model by stage."""

    rates: dict[str, float]
    flops: dict[StageName, int]
    others: float | None
    """Share of all processors that other processes used during the measurement."""


class ExportPlain(msgspec.Struct, frozen=True, tag="export"):
    """Write the plain export. The answer is a `Done`."""

    bundle: str
    weights: WeightOptions
    folder: str


class Done(msgspec.Struct, frozen=True):
    """The answer of a job that returns no data."""


class Grow(msgspec.Struct, frozen=True, tag="grow"):
    """Measure how a bundle's cost grows. The answer is a `Growth`."""

    bundle: str
    choice: RequestedEngine
    rounds: int


class ProfileBundle(msgspec.Struct, frozen=True, tag="profile"):
    """Measure where a bundle's time goes. The answer is a `Profile`."""

    bundle: str
    choice: RequestedEngine
    rounds: int


Job: TypeAlias = Measure | MeasureMachine | ExportPlain | Grow | ProfileBundle
Answer: TypeAlias = ContenderRun | MachineRates | Done | Growth | Profile


class Failure(msgspec.Struct, frozen=True):
    """An error raised in the worker process."""

    kind: str
    """Name of a class in glesam_runtime.errors."""
    message: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """The reply that a worker process writes: an answer or a failure."""

    answer: msgspec.Raw = msgspec.Raw()
    failure: Failure | None = None


def encode(value: Any) -> bytes:
    """Encode a value as JSON; paths become text."""
    return msgspec.json.encode(value, enc_hook=str)


def decode(raw: bytes, kind: Any) -> Any:
    """Decode what `encode` made."""
    return msgspec.json.decode(raw, type=kind, dec_hook=_path)


def _path(kind: Any, text: Any) -> Any:
    if kind is not Path:
        raise TypeError(f"no way to read a {kind}")
    return Path(text)


T = TypeVar("T")


def run_job(job: Job, answer: type[T]) -> T:
    """Do a job in a new process and return its answer.

    Raises:
        GlesamError: the job raised it there.
        BackendError: the process ended without an answer.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, result, told = (Path(folder) / name for name in ("job", "answer", "stderr"))
        question.write_bytes(encode(job))
        command = [sys.executable, "-m", "glesam_benchmark.worker", str(question), str(result)]
        with (
            told.open("wb") as log,
            subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL) as child,
        ):
            try:
                code = child.wait()
            finally:
                child.kill()  # a finished process ignores this; after a Ctrl-C it must not go on
        if code or not result.is_file():
            raise BackendError(_explain(code, told.read_text(errors="replace")))
        reply: Reply = decode(result.read_bytes(), Reply)
    if reply.failure is not None:
        kind: type[GlesamError] = getattr(errors, reply.failure.kind)
        raise kind(reply.failure.message)
    found: T = decode(reply.answer, answer)
    return found


def _explain(code: int, told: str) -> str:
    """Return why a process ended, from its exit code and the last line it printed."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; memory may be short" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    lines = told.strip().splitlines() or ["it printed nothing"]
    return f"its process ended with exit code {code}: {lines[-1]}"
