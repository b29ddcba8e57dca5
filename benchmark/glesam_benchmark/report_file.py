"""Make the head of every report, and write reports as text, JSON and a picture."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from glesam_benchmark.machine import Host, host
from glesam_runtime.bundle import Bundle
from glesam_runtime.manifest import PrecisionName, StageName
from glesam_runtime.staging import staged_file

FORMAT = "glesam-bench"
VERSION = 1


class ReportHead(msgspec.Struct, frozen=True):
    """The head of a report: which bundle was measured, on which machine."""

    format: str
    version: int
    preset: str
    unet: str
    weights: str
    """Where the weights come from, in words."""
    sha256: str
    """Hash of the bundle's manifest."""
    precisions: dict[StageName, PrecisionName]
    """The precision of each stage's graph."""
    host: Host
    rounds: int
    """Total number of rounds behind each figure."""

    @property
    def model(self) -> str:
        """Return the model's name for people."""
        return f"{self.preset} with {self.unet}"


def report_head(bundle: Bundle, threads: int | None, rounds: int) -> ReportHead:
    """Describe a bundle and this machine."""
    manifest = bundle.manifest
    return ReportHead(
        FORMAT,
        VERSION,
        manifest.model.preset,
        manifest.model.unet,
        manifest.provenance.weights,
        bundle.sha256,
        {name: stage.precision for name, stage in manifest.stages.items()},
        host(threads),
        rounds,
    )


Draw = Callable[[Any, Path], None]


def as_json(found: Any) -> str:
    """Return indented JSON; NaN and infinity become null."""
    return msgspec.json.format(msgspec.json.encode(found), indent=2).decode() + "\n"


def write_report(folder: Path, name: str, found: Any, text: str, draw: Draw | None) -> str:
    """Write `<name>.txt`, `<name>.json` and, with `draw`, `<name>.png`: all of them or none.

    Returns:
        A line that names the files.

    Raises:
        InputError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"{name}.{ending}" for ending in ("txt", "json", *(["png"] if draw else []))]
    with ExitStack() as stack:
        table, document, *picture = (
            stack.enter_context(staged_file(folder / file)) for file in files
        )
        table.write_text(text + "\n", encoding="utf-8")
        document.write_text(as_json(found), encoding="utf-8")
        if draw is not None:
            draw(found, *picture)
    return f"{folder}: {', '.join(files)}"
