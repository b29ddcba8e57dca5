"""Define the types of gpu.json, which holds everything that one run on a GPU has found."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import msgspec

from glesam_runtime.manifest import StageName

FORMAT: Literal["glesam-gpu"] = "glesam-gpu"
VERSION: Literal[1] = 1

K = TypeVar("K", bound=msgspec.Struct)

Status = Literal["waiting", "running", "done", "cut off", "failed", "left out"]


class Timed(msgspec.Struct, frozen=True, tag="timed"):
    """One way to run a model at one batch size; seconds are medians of single calls."""

    model: str
    contender: str
    precision: str
    batch: int
    seconds: dict[str, float]
    """By step: encoder, enhancer, decoder, second_prompt, end_to_end. Encoder and enhancer take the
    whole batch. `second_prompt` is one decoder call with its copies from and to the host."""
    fastest: dict[str, float]
    """The fastest call of each step."""
    repeats: int
    memory: int | None = None
    """Bytes of device memory that the process holds, its context included; None if unknown."""
    finite: bool = True
    """Whether all outputs are finite."""


class Streams(msgspec.Struct, frozen=True, tag="streams"):
    """Images per second of several chains at once, each with its own sessions and thread."""

    model: str
    contender: str
    precision: str
    streams: int
    images_per_second: float


class Check(msgspec.Struct, frozen=True, tag="check"):
    """The self-test of a bundle: its outputs against the PyTorch reference's."""

    model: str
    contender: str
    precision: str
    passed: bool
    relative_l2: dict[str, float]
    """By stage and output."""
    mask_iou_mean: float
    failures: tuple[str, ...]


class Rates(msgspec.Struct, frozen=True, tag="rates"):
    """The fastest product of two square matrices in operations per second, and the copy rate."""

    matrix: dict[str, float]
    """By precision; "tf32" is float32 data on the matrix units."""
    copy: float
    """Bytes read and written per second by a copy on the device."""
    side: int


class Operations(msgspec.Struct, frozen=True, tag="operations"):
    """Floating point operations of one image and one prompt, by stage."""

    model: str
    flops: dict[StageName, int]


class Remark(msgspec.Struct, frozen=True, tag="remark"):
    """Something that could not be measured, and why; or a fact without a figure."""

    about: str
    text: str


Finding: TypeAlias = Timed | Streams | Check | Rates | Operations | Remark


class Record(msgspec.Struct, frozen=True):
    """What became of one part of the plan."""

    name: str
    status: Status
    seconds: float = 0.0
    limit: float = 0.0
    reason: str = ""
    """Why the part did not finish."""
    beside: tuple[str, ...] = ()
    """The parts that used the CPU while this one started."""
    findings: tuple[Finding, ...] = ()


class Results(msgspec.Struct, frozen=True):
    """The whole run."""

    format: Literal["glesam-gpu"]
    version: Literal[1]
    dry_run: bool
    """True for a run on a CPU, whose figures say nothing about a GPU."""
    started: str
    """UTC, ISO 8601."""
    seconds: float
    device: str
    versions: dict[str, str]
    parts: tuple[Record, ...]

    def of(self, kind: type[K]) -> list[K]:
        """Return the findings of one kind, in the order of the plan."""
        return [found for part in self.parts for found in part.findings if isinstance(found, kind)]


def read_results(path: Path) -> Results:
    """Read gpu.json.

    Raises:
        msgspec.ValidationError: the file is not such a JSON.
    """
    return msgspec.json.decode(path.read_bytes(), type=Results)


def read_findings(path: Path) -> tuple[Finding, ...]:
    """Read the findings that a part has written so far, one a line.

    A part that was killed may leave its last line incomplete; that line is left out.
    """
    if not path.is_file():
        return ()
    lines = path.read_bytes().split(b"\n")[:-1]
    return tuple(msgspec.json.decode(line, type=Finding) for line in lines)


def add_finding(path: Path, finding: Finding) -> None:
    """Append a finding. A reader sees it at once."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(finding) + b"\n")
