"""Environments: no home, a user without a name, closed streams, read-only folders, full disks."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..case import Case, Make, Place

_NOBODY = 4_000_123
"""A user id that no system has a name for."""
_RUN: Make = lambda place: place.command("--json")  # noqa: E731 - the type is the point


def _for_nobody(place: Place) -> list[Any]:
    """Return the command of a user who may write to the folder of the case only."""
    place.root.chmod(0o777)
    return _auto(place)


def _auto(place: Place) -> list[Any]:
    """Return the command that looks for the user's cache."""
    return [place.photo(), "--points", "9,9", *place.engine(backend="auto")]


def _set(name: str, make: Make = _RUN, **further: Any) -> Case:
    """Return the case of a sound run in this environment."""
    return Case("environment", name, make, **{"codes": (0,), "notes": True, **further})


def _output(name: str, change: Callable[[Path], object], says: str, **further: Any) -> Case:
    """Return the case of an output folder at which `change` makes something else."""

    def make(place: Place) -> list[Any]:
        change(place.out)
        return place.command()

    return _set(name, make, says=says, **{"codes": (2,), **further})


def _home(name: str, change: Callable[[Path], object]) -> Case:
    """Return the case of a home folder that `change` turns into something else."""

    def make(place: Place) -> list[Any]:
        place.home.rmdir()
        change(place.home)
        return _auto(place)

    return _set(name, make)


def _close(*numbers: int) -> Callable[[Place], None]:
    return lambda _: [os.close(number) for number in numbers] and None


def _redirect(number: int, path: str) -> Callable[[Place], None]:
    return lambda _: os.dup2(os.open(path, os.O_RDWR), number) and None


def _no_reader(number: int) -> Callable[[Place], None]:
    """Let a stream be a pipe whose reader has ended."""

    def before(_: Place) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, number)

    return before


def _become_nobody(place: Place) -> None:
    os.setgroups([])
    os.setgid(_NOBODY)
    os.setuid(_NOBODY)


def _unwritable(place: Place) -> list[Any]:
    place.out.mkdir(mode=0o555)
    return place.command()


def _limit(kind: int, amount: int) -> Callable[[Place], None]:
    return lambda _: resource.setrlimit(kind, (amount, amount))


def _leave_the_folder(place: Place) -> None:
    place.cwd.rmdir()


def _eps(place: Place) -> list[Any]:
    return place.command(
        image=place.write("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    )


def _foreign_letters(place: Place) -> list[Any]:
    return place.command(image=place.photo("\u6f22\u5b57\xe9\U0001f40d.png"))


def _no_text(place: Place) -> list[Any]:
    return place.command(image=place.photo(b"\xff\xe9.png"))


_AS_ROOT = os.geteuid() == 0 and os.access("/proc", os.R_OK)
_CASES_OF_ROOT = [
    _set("a user without a name", _for_nobody, before=_become_nobody, environment={"HOME": None}),
    _set("a user without a name, with a home", _for_nobody, before=_become_nobody),
    _set(
        "an unwritable output folder",
        _unwritable,
        before=_become_nobody,
        codes=(2,),
        says="permission",
    ),
]
_LIMITS = [
    _set("20 open files", before=_limit(resource.RLIMIT_NOFILE, 20), codes=(0, 2)),
    _set("8 open files", before=_limit(resource.RLIMIT_NOFILE, 8), codes=(2,)),
    _set(
        "files of 500 bytes",
        lambda p: p.command(image=p.photo(width=900, height=900)),
        before=_limit(resource.RLIMIT_FSIZE, 500),
        codes=(2,),
        separate=True,
    ),
    _set("no further threads", before=_limit(resource.RLIMIT_NPROC, 1), codes=(0, 2)),
    *(
        _set(
            f"{mebibytes} MiB to map",
            before=_limit(resource.RLIMIT_AS, mebibytes << 20),
            codes=(0, 2),
            separate=True,
        )
        for mebibytes in (600, 900, 1500)
    ),
]
_STREAMS = [
    _set("stdin closed", before=_close(0), separate=True),
    _set("stdout closed", before=_close(1), separate=True),
    _set("stderr closed", before=_close(2), separate=True),
    _set("all streams closed", before=_close(0, 1, 2), separate=True),
    _set(
        "stderr closed, and an error",
        lambda _: ["none.png"],
        before=_close(2),
        codes=(2,),
        lines=0,
        separate=True,
    ),
    _set(
        "stdout to a full disk",
        before=_redirect(1, "/dev/full"),
        codes=(2,),
        says="no space",
        writes=True,
        separate=True,
    ),
    _set(
        "stderr to a full disk",
        lambda _: ["none.png"],
        before=_redirect(2, "/dev/full"),
        codes=(2,),
        lines=0,
        separate=True,
    ),
    _set(
        "stdout without a reader",
        before=_no_reader(1),
        codes=(141,),
        lines=0,
        writes=True,
        separate=True,
    ),
    _set(
        "stderr without a reader",
        lambda _: ["none.png"],
        before=_no_reader(2),
        codes=(2, 141),
        lines=0,
        separate=True,
    ),
    _set("stdin that never ends", before=_redirect(0, "/dev/zero")),
]
_WORDS = [
    _set("LANG=C", _foreign_letters, environment={"LANG": "C", "LC_ALL": "C"}, separate=True),
    _set("no LANG", _foreign_letters, environment={"LANG": None}, separate=True),
    _set(
        "an unknown LANG", _foreign_letters, environment={"LC_ALL": "xx_XX.KOI-99"}, separate=True
    ),
    *(
        _set(
            f"streams in {encoding}",
            _foreign_letters,
            environment={"PYTHONIOENCODING": f"{encoding}:strict"},
            encoding=encoding,
            separate=True,
        )
        for encoding in ("cp1252", "ascii", "utf-8")
    ),
    _set(
        "a name that is no text, streams in ASCII",
        _no_text,
        environment={"PYTHONIOENCODING": "ascii:strict"},
        separate=True,
    ),
    _set(
        "a name that is no text, streams in UTF-8",
        _no_text,
        environment={"PYTHONIOENCODING": "utf-8:strict"},
        separate=True,
    ),
]
_VARIABLES = [
    _set(
        "no HOME",
        _auto,
        environment={"HOME": None, "XDG_CACHE_HOME": "/proc/none"},
        touches=("/proc",),
    ),
    _set("HOME of nothing", _auto, environment={"HOME": ""}),
    _set("HOME that does not exist", _auto, environment={"HOME": "/proc/none"}, touches=("/proc",)),
    _set("HOME relative", _auto, environment={"HOME": "relative"}),
    _set(
        "XDG_CACHE_HOME that is a device",
        _auto,
        environment={"XDG_CACHE_HOME": "/dev/null"},
        touches=("/dev/null",),
    ),
    _set(
        "XDG_CACHE_HOME of 5000 characters",
        _auto,
        environment={"XDG_CACHE_HOME": "/" + "x" * 5000},
        touches=("/xxx",),
    ),
    _set("no TMPDIR", environment={"TMPDIR": "/nonexistent"}),
    _set("no PATH", environment={"PATH": ""}),
    _set("COLUMNS of 1", environment={"COLUMNS": "1"}),
    _set("COLUMNS of letters", environment={"COLUMNS": "many", "LINES": "-5"}),
    _set("terminal of escape codes", environment={"TERM": "\x1b[2J", "FORCE_COLOR": "1"}),
    _set("ORT's variables", environment={"ORT_LOGGING_LEVEL": "0", "ORT_DISABLE_TELEMETRY": "x"}),
    *(
        _set(
            f"GLESAM_MAX_MEGAPIXELS={value[:20]}",
            environment={"GLESAM_MAX_MEGAPIXELS": value},
            codes=(2,),
            says="GLESAM_MAX_MEGAPIXELS",
        )
        for value in ("0", "-1", "nan", "1e9", "9" * 5000, "\x1b[2J", " 5", "\u0665")
    ),
    _set("a fake gs for an EPS", _eps, codes=(2,), says="a.png"),
]
_FOLDERS = [
    _output("output is a file", Path.touch, "is a file"),
    _output("output is a FIFO", os.mkfifo, "out"),
    _output("output is a link to itself", lambda path: path.symlink_to(path), "out"),
    _output("output is a link to nothing", lambda path: path.symlink_to("/none/none"), "out|none"),
    _output("output is a link to /dev/null", lambda path: path.symlink_to("/dev/null"), "out"),
    _set(
        "output of 300 characters",
        lambda p: [*p.command()[:-1], p.root / ("o" * 300)],
        codes=(2,),
        says="too long",
    ),
    _set(
        "output below a file",
        lambda p: [*p.command()[:-1], p.secret / "a" / "b"],
        codes=(2,),
        says="secret",
    ),
    _set(
        "output in /proc",
        lambda p: [*p.command()[:-1], "/proc/glesam"],
        codes=(2,),
        says="/proc",
        touches=("/proc",),
    ),
    _set(
        "output in /dev/full",
        lambda p: [*p.command()[:-1], "/dev/full"],
        codes=(2,),
        says="/dev/full",
    ),
    _set("a current folder that was deleted", before=_leave_the_folder, changes=("cwd",)),
    _home("a home that is a file", Path.touch),
    _home("a home that is a FIFO", os.mkfifo),
    _home("a home that is a link to itself", lambda path: path.symlink_to(path)),
]
CASES = [
    *(_CASES_OF_ROOT if _AS_ROOT else []),
    *_LIMITS,
    *_STREAMS,
    *_WORDS,
    *_VARIABLES,
    *_FOLDERS,
]
