"""Run the parts of a plan within their time limits, and keep gpu.json complete at every moment.

Usage: python -m glesam_benchmark.gpu.run --output DIR [--seconds N] [--dry-run]

A part that hangs or crashes costs only its own time. gpu.json is replaced atomically whenever a
part starts, finds something or ends, so a run that is cut off still counts.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import NoReturn

import msgspec

from glesam_benchmark.gpu.findings import FORMAT, VERSION, Record, Results, read_findings
from glesam_benchmark.gpu.plan import Part, Plan, dry_plan, full_plan

DEFAULT_SECONDS = 450.0
LEAST_SECONDS = 5.0
"""No part starts with less time left."""
_POLL = 0.1
_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""Where a driver is: on Linux also in containers without nvidia-smi, and on WSL."""

Command = Callable[[Part, Path], Sequence[str]]
"""Returns the command of a part, which writes findings to the path."""


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    start: float
    beside: tuple[str, ...]


@dataclass
class Runner:
    """The state of a run.

    Attributes:
        plan: what to run.
        folder: where gpu.json and each part's findings and log go.
        command: how to run a part.
        device: name of the device, for the JSON.
        versions: versions of packages, for the JSON.
        dry_run: whether the figures say nothing about a GPU.
    """

    plan: Plan
    folder: Path
    command: Command
    device: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.started = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.start = time.monotonic()
        self.records = {
            part.name: Record(part.name, "waiting", limit=part.limit) for part in self.plan.parts
        }
        self.running: list[_Running] = []
        self._written: tuple[object, ...] = ()

    def run(self) -> Results:
        """Run every part that fits into the time; return what gpu.json holds."""
        try:
            while self._start_parts() or self.running:
                self._collect()
                self._write()
                time.sleep(_POLL)
        finally:
            for each in self.running:
                _kill(each.process)
            self._collect()
            for name, record in self.records.items():
                if record.status == "waiting":
                    self._end(name, "left out", "no time was left")
            self._write()
        return self.results()

    def results(self) -> Results:
        """Return the results so far."""
        records = []
        for name, record in self.records.items():
            findings = read_findings(self._findings(name))
            records.append(msgspec.structs.replace(record, findings=findings))
        return Results(
            FORMAT,
            VERSION,
            self.dry_run,
            self.started,
            round(self._elapsed(), 1),
            self.device,
            self.versions,
            tuple(records),
        )

    def _start_parts(self) -> bool:
        """Start what may start; return whether a part still waits."""
        waiting = [part for part in self.plan.parts if self.records[part.name].status == "waiting"]
        for part in waiting:
            lacking = [name for name in part.needs if self.records[name].status != "done"]
            lost = [name for name in lacking if self.records[name].status in _LOST]
            if lost:
                self._end(part.name, "left out", f"needs {lost[0]!r}")
            elif not lacking and self._is_free(part) and self._left() > LEAST_SECONDS:
                self._start(part)
        if self._left() <= LEAST_SECONDS:
            return False
        return any(self.records[part.name].status == "waiting" for part in waiting)

    def _is_free(self, part: Part) -> bool:
        at_once = self.plan.preparing if part.lane == "cpu" else 1
        return sum(each.part.lane == part.lane for each in self.running) < at_once

    def _start(self, part: Part) -> None:
        findings = self._findings(part.name)
        findings.unlink(missing_ok=True)
        with findings.with_suffix(".log").open("wb") as log:
            process = subprocess.Popen(
                self.command(part, findings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": str(self.plan.threads)},
                start_new_session=True,  # so that what it starts can be killed with it
            )
        beside = tuple(each.part.name for each in self.running)
        self.running.append(_Running(part, process, time.monotonic(), beside))
        self.records[part.name] = Record(part.name, "running", limit=part.limit, beside=beside)
        print(f"{self._elapsed():6.1f} s  {part.name}", flush=True)

    def _collect(self) -> None:
        """Note the parts that have ended, and kill those whose time is over."""
        for each in list(self.running):
            code, seconds = each.process.poll(), time.monotonic() - each.start
            late = seconds > each.part.limit or self._left() <= 0
            if code is None and not late:
                continue
            if code is None:
                _kill(each.process)
            self.running.remove(each)
            if code == 0:
                self._end(each.part.name, "done", "", seconds)
            elif code is None:
                self._end(each.part.name, "cut off", f"after {seconds:.0f} s", seconds)
            else:
                self._end(each.part.name, "failed", self._last_line(each.part.name, code), seconds)

    def _end(self, name: str, status: str, reason: str, seconds: float = 0.0) -> None:
        self.records[name] = msgspec.structs.replace(
            self.records[name], status=status, reason=reason, seconds=round(seconds, 1)
        )
        words = f": {reason}" if reason else ""
        print(f"{self._elapsed():6.1f} s  {name}: {status}{words}", flush=True)

    def _last_line(self, name: str, code: int) -> str:
        told = self._findings(name).with_suffix(".log").read_text(errors="replace")
        lines = told.strip().splitlines() or ["it printed nothing"]
        return f"exit code {code}: {lines[-1][:300]}"

    def _findings(self, name: str) -> Path:
        return self.folder / f"{name.replace(' ', '_').replace(',', '')}.jsonl"

    def _write(self) -> None:
        """Replace gpu.json if anything has changed."""
        sizes = [
            path.stat().st_size if path.is_file() else 0
            for path in (self._findings(name) for name in self.records)
        ]
        state = (*(record.status for record in self.records.values()), *sizes)
        if state == self._written:
            return
        self._written = state
        made = msgspec.json.format(msgspec.json.encode(self.results()), indent=1)
        partial = self.folder / "gpu.json.partial"
        partial.write_bytes(made + b"\n")
        partial.replace(self.folder / "gpu.json")

    def _elapsed(self) -> float:
        return time.monotonic() - self.start

    def _left(self) -> float:
        return self.plan.seconds - self._elapsed()


_LOST = ("failed", "cut off", "left out")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a part and everything it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class _Parser(argparse.ArgumentParser):
    """Reports a wrong option in one line, as the other programs do."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows the options)\n")


def main() -> None:
    """Read the options, run the plan, and say where the results are."""
    parser = _Parser(
        prog="python -m glesam_benchmark.gpu.run",
        description="Measure everything on this machine's GPU.",
    )
    parser.add_argument("--output", type=Path, required=True, help="Folder for gpu.json.")
    parser.add_argument("--work", type=Path, help="Folder for bundles. Default: OUTPUT/work.")
    parser.add_argument(
        "--seconds",
        type=float,
        default=DEFAULT_SECONDS,
        help="Time for all parts together, in seconds. Parts that get no time are left out. "
        "Default: %(default)g.",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="Run nano on the CPU. The figures mean nothing."
    )
    given = parser.parse_args()
    if not LEAST_SECONDS <= given.seconds < math.inf:
        parser.error(f"--seconds {given.seconds:g}: must be a number of at least {LEAST_SECONDS:g}")
    for option, folder in (("--output", given.output), ("--work", given.work)):
        if folder is not None and any(
            each.is_file() for each in (folder, *folder.absolute().parents)
        ):
            parser.error(f"{option} {folder}: is a file or lies in one; pass another folder")
    if not given.dry_run and not (shutil.which("nvidia-smi") or any(map(os.path.exists, _DEVICES))):
        parser.error("this machine has no NVIDIA GPU; --dry-run runs nano on the CPU")
    plan = dry_plan(given.seconds) if given.dry_run else full_plan(given.seconds)
    from glesam_benchmark.gpu import part

    work = given.work or given.output / "work"
    work.mkdir(parents=True, exist_ok=True)

    def command(each: Part, findings: Path) -> list[str]:
        job = part.Job(each.task, str(work), str(findings), plan.device, plan.repeats)
        return [sys.executable, "-m", "glesam_benchmark.gpu.part", part.encode(job)]

    runner = Runner(
        plan,
        given.output,
        command,
        part.device_name(plan.device),
        part.versions(),
        given.dry_run,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # `finally` then writes gpu.json
    found = runner.run()
    done = sum(record.status == "done" for record in found.parts)
    print(f"{given.output / 'gpu.json'}: {done} of {len(found.parts)} parts done")


if __name__ == "__main__":
    main()
