"""What a process of its own is asked, and what it answers: plain data, JSON on the way."""

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
from glesam_runtime.engine_choice import EngineChoice
from glesam_runtime.errors import BackendError, GlesamError
from glesam_runtime.manifest import StageName


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Time a contender; answered by a `Run`, and its masks in a file."""

    bundle: str
    runner: Runner
    rounds: int
    masks: str
    """Where the first prompt's logits go (.npy)."""


class MeasureMachine(msgspec.Struct, frozen=True, tag="machine"):
    """Matrix rates, and what the model takes; answered by a `MachineRates`."""

    preset: str
    unet: str
    threads: int | None
    side: int
    """Of the matrices."""


class MachineRates(msgspec.Struct, frozen=True):
    """Operations a second by precision, operations by stage."""

    rates: dict[str, float]
    flops: dict[StageName, int]
    others: float | None
    """Share of all processors' time that other processes had while the rates were measured."""


class ExportPlain(msgspec.Struct, frozen=True, tag="export"):
    """Write the plain exports where they are not there; answered by a `Done`."""

    bundle: str
    weights: WeightOptions
    folder: str


class Done(msgspec.Struct, frozen=True):
    """It is done."""


class Grow(msgspec.Struct, frozen=True, tag="grow"):
    """How a bundle's cost grows; answered by a `Growth`."""

    bundle: str
    choice: EngineChoice
    rounds: int


class ProfileBundle(msgspec.Struct, frozen=True, tag="profile"):
    """Where a bundle's time goes; answered by a `Profile`."""

    bundle: str
    choice: EngineChoice
    rounds: int


Job: TypeAlias = Measure | MeasureMachine | ExportPlain | Grow | ProfileBundle
Answer: TypeAlias = ContenderRun | MachineRates | Done | Growth | Profile


class Failure(msgspec.Struct, frozen=True):
    """What went wrong in the other process."""

    kind: str
    """A class of glesam_runtime.errors."""
    message: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the other process writes: one of the two."""

    answer: msgspec.Raw = msgspec.Raw()
    failure: Failure | None = None


def encode(value: Any) -> bytes:
    """As JSON; paths are text."""
    return msgspec.json.encode(value, enc_hook=str)


def decode(raw: bytes, kind: Any) -> Any:
    """Of `encode`."""
    return msgspec.json.decode(raw, type=kind, dec_hook=_path)


def _path(kind: Any, text: Any) -> Any:
    if kind is not Path:
        raise TypeError(f"no way to read a {kind}")
    return Path(text)


T = TypeVar("T")


def run_job(job: Job, answer: type[T]) -> T:
    """Do a job elsewhere.

    Raises:
        GlesamError: what the job raised there.
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
                child.kill()  # of one that ended nothing is left; after a Ctrl-C it would go on
        if code or not result.is_file():
            raise BackendError(_explain(code, told.read_text(errors="replace")))
        reply: Reply = decode(result.read_bytes(), Reply)
    if reply.failure is not None:
        kind: type[GlesamError] = getattr(errors, reply.failure.kind)
        raise kind(reply.failure.message)
    found: T = decode(reply.answer, answer)
    return found


def _explain(code: int, told: str) -> str:
    """Why a process ended, from its exit code and its last words."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; memory may be short" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{hint}"
    lines = told.strip().splitlines() or ["it says nothing"]
    return f"its process ended with exit code {code}: {lines[-1]}"
