"""Run a program in a process of its own, and measure it.

A case runs in a fork of this process, which has imported the program already: that takes 20 ms
instead of a second, and isolates memory, signals and exit code as a new process does.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .case import Case, Place

LONGEST = 25.0
"""Seconds after which a program is killed."""
MOST_MEMORY = 5 << 30
"""Bytes that a program may map beyond what it has when it starts, so that no machine is harmed."""
LARGEST_FILE = 1 << 30
_MODULES = {
    "glesam-run": ("glesam_runtime.cli", "main"),
    "glesam-export": ("glesam_export.cli", "main"),
    "glesam-degrade": ("glesam_evaluation.degrade_cli", "degrade_main"),
    "glesam-evaluate": ("glesam_training.evaluate_cli", "main"),
}
"""The module of each program and the function that starts it."""
_WARM = {
    "glesam-run": (
        "numpy",
        "PIL.Image",
        "safetensors.numpy",
        "glesam_runtime.backends.onnxruntime",
        "glesam_runtime.everything.segment_file",
        "glesam_runtime.predictor",
        "glesam_runtime.segment_file",
        "glesam_runtime.selftest",
    ),
    "glesam-export": ("torch", "glesam_export.checkpoints.formats"),
    "glesam-degrade": ("cv2", "glesam_evaluation.degrade"),
    "glesam-evaluate": (
        "glesam_evaluation.degrade",
        "glesam_evaluation.plot",
        "glesam_evaluation.segmenters",
        "pycocotools.mask",
    ),
}
_CHANGING_EVENTS = {
    "os.chmod": 1,
    "os.link": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.symlink": 2,
    "os.truncate": 1,
    "os.utime": 1,
}
"""Events of Python's audit, and how many of their first arguments are paths that change."""
_RUNNING_EVENTS = (
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyname",
    "socket.sendto",
    "subprocess.Popen",
)
"""Events that no hostile input may cause."""


@dataclass(frozen=True)
class Outcome:
    """What a program did."""

    code: int
    """The exit code; 128 + N if the signal N ended it."""
    stdout: bytes
    stderr: bytes
    seconds: float
    """CPU time."""
    wall: float
    mebibytes: float
    """Peak memory, minus the memory that the process had when the program started in it."""
    events: tuple[str, ...]
    """What it did that no program may do: files changed elsewhere, programs started, and so on."""
    killed: bool
    """Whether a signal ended it before the program handled signals, so without a word."""


def run(case: Case, arguments: Sequence[Any], place: Place) -> Outcome:
    """Run the program of a case, and kill it after `LONGEST` seconds."""
    _warm_up(case.program)
    names = ("stdout", "stderr", "events", "memory")
    files = [place.root.with_name(f"{place.root.name}.{name}") for name in names]
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(case, [os.fspath(each) for each in arguments], place, files)
    watch = os.pidfd_open(pid)
    try:
        if case.during is not None:
            case.during(pid, place)
        ended = select.select([watch], [], [], LONGEST - (time.monotonic() - start))[0]
        if not ended:
            os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    finally:
        os.close(watch)
    code = os.waitstatus_to_exitcode(status)
    stdout, stderr, events, before = (path.read_bytes() for path in files)
    return Outcome(
        128 - code if code < 0 else code,
        stdout,
        stderr,
        usage.ru_utime + usage.ru_stime,
        time.monotonic() - start,
        max(0.0, (usage.ru_maxrss - int(before)) / 1024),
        tuple(events.decode(errors="backslashreplace").splitlines()),
        killed=code < 0,
    )


@cache
def _warm_up(program: str) -> None:
    """Import what the program imports, so that its forks start at once."""
    for name in ("glesam_runtime.cli", *_WARM["glesam-run"], *_WARM[program]):
        importlib.import_module(name)
    importlib.import_module(_MODULES[program][0])
    from glesam_runtime.engine_libraries import import_onnxruntime

    import_onnxruntime()
    gc.collect()
    gc.freeze()  # so that a fork does not copy memory by counting references


def _memory() -> int:
    """Return the memory of this process in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def _become(case: Case, arguments: list[str], place: Place, files: list[Path]) -> None:
    """Turn this process into the program of a case; never returns."""
    code = 99
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, path in zip((1, 2), files, strict=False):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
        events = os.open(files[2], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        environment = _environment(case, place)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(place.cwd)
        tempfile.tempdir = None
        # A shell that starts the tests in the background has SIGINT ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _limit_resources()
        files[3].write_text(str(_memory()))
        if case.before is not None:
            case.before(place)
        if case.separate:
            package = _MODULES[case.program][0].partition(".")[0]
            os.execv(sys.executable, [sys.executable, "-m", package, *arguments])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.stdin, sys.stdout, sys.stderr = (_stream(number) for number in (0, 1, 2))
        _watch(case, place, events)
        sys.argv = [case.program, *arguments]
        code = _exit_code(case)
    except BaseException:  # noqa: BLE001 - the judge reads it
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _environment(case: Case, place: Place) -> dict[str, str]:
    """Return the environment of a case."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    given = {
        **kept,
        "PATH": f"{place.root / 'bin'}:/usr/bin:/bin",
        "HOME": str(place.home),
        "TMPDIR": str(place.root / "tmp"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **case.environment,
    }
    return {name: value for name, value in given.items() if value is not None}


def _limit_resources() -> None:
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MOST_MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _stream(number: int) -> Any:
    """Return the stream that a new interpreter would make."""
    try:
        mode = "r" if number == 0 else "w"
        errors = "backslashreplace" if number == 2 else "strict"
        return os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False)
    except OSError:
        return None


def _watch(case: Case, place: Place, events: int) -> None:
    """Record what the program does that no program may do."""
    secret = os.fsencode(place.secret)
    writable = (os.fsencode(place.root) + b"/", *map(os.fsencode, case.touches))

    def note(text: str) -> None:
        os.write(events, text.encode(errors="backslashreplace") + b"\n")

    def allowed(path: Any) -> bool:
        if isinstance(path, int):
            return True
        full = os.path.abspath(os.fsencode(path))  # noqa: PTH100 - may be no text
        return full == b"/dev/null" or full.startswith(writable)

    def seen(event: str, values: tuple[Any, ...]) -> None:
        if event == "open" and not isinstance(values[0], int):
            path, _, flags = values
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not allowed(path):
                note(f"opens {path!r} for writing")
            if os.fsencode(path) == secret:
                note(f"reads {path!r}")
        elif event in _CHANGING_EVENTS:
            for path in values[: _CHANGING_EVENTS[event]]:
                if not allowed(path):
                    note(f"{event} {path!r}")
        elif event in _RUNNING_EVENTS:
            note(f"{event} {values!r}"[:500])

    sys.addaudithook(seen)


def _exit_code(case: Case) -> int:
    """Run `main` as the interpreter would, and return the exit code."""
    try:
        module, start = _MODULES[case.program]
        getattr(importlib.import_module(module), start)()
    except SystemExit as end:
        code = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            code = 120  # as the interpreter does
    return code
