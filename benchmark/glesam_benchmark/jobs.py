"""What a process of its own is asked, and what it answers: plain data, JSON on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from glesam_benchmark.chain import Run
from glesam_benchmark.contenders import Runner
from glesam_benchmark.growth import Growth
from glesam_benchmark.profile import Profile
from glesam_export.weight_options import WeightOptions
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.manifest import StageName


class Measure(msgspec.Struct, frozen=True, tag="measure"):
    """Time a contender; answered by a `Run`, and its masks in a file."""

    bundle: str
    runner: Runner
    rounds: int
    masks: str
    """Where the first prompt's logits go (.npy)."""


class MeasureMachine(msgspec.Struct, frozen=True, tag="machine"):
    """Matrix rates, and what the model takes; answered by a `Machine`."""

    preset: str
    unet: str
    threads: int | None
    side: int
    """Of the matrices."""


class Machine(msgspec.Struct, frozen=True):
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
    choice: RequestedEngine
    rounds: int


class ProfileBundle(msgspec.Struct, frozen=True, tag="profile"):
    """Where a bundle's time goes; answered by a `Profile`."""

    bundle: str
    choice: RequestedEngine
    rounds: int


Job: TypeAlias = Measure | MeasureMachine | ExportPlain | Grow | ProfileBundle
Answer: TypeAlias = Run | Machine | Done | Growth | Profile


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
