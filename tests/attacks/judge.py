"""Judge what a program did with a hostile input."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .case import Case, Place
from .program import LONGEST, Outcome

LONGEST_LINE = 2200
"""Characters of a line on stderr."""
MOST_FAULTS = 9
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_PROGRESS = re.compile(r"\d+ of \d+ images")
_UNTRANSLATED = ("a bug in this program", "Traceback (most recent call last)")

State = dict[str, tuple[object, ...]]


def state_of(place: Place) -> State:
    """Return kind, mode, size, time of change and target of everything but the outputs."""
    found: State = {}
    pending = [place.root]
    while pending:
        for entry in os.scandir(pending.pop()):
            if Path(entry.path) == place.out:
                continue
            status = entry.stat(follow_symlinks=False)
            target = str(Path(entry.path).readlink()) if entry.is_symlink() else ""
            size = 0 if entry.is_dir(follow_symlinks=False) else status.st_size
            changed = 0 if entry.is_dir(follow_symlinks=False) else status.st_mtime_ns
            found[entry.path] = (status.st_mode, size, changed, target)
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
    return found


def faults(case: Case, outcome: Outcome, place: Place, before: State, after: State) -> list[str]:
    """Return everything that is wrong with what the program did; nothing if all is well."""
    wrong = [*_spoken(case, outcome), *_written(case, outcome, place, before, after)]
    if outcome.wall >= LONGEST:
        wrong.append(f"killed after {outcome.wall:.0f} s")
    if outcome.code not in case.codes:
        wrong.append(f"exit code {outcome.code}, not {' or '.join(map(str, case.codes))}")
    if outcome.seconds > case.seconds:
        wrong.append(f"{outcome.seconds:.1f} s of CPU time, more than {case.seconds:g} s")
    if outcome.mebibytes > case.mebibytes:
        wrong.append(f"{outcome.mebibytes:.0f} MiB of memory, more than {case.mebibytes} MiB")
    wrong.extend(f"the program {event}" for event in outcome.events)
    if place.witness.exists():
        wrong.append("hostile code was executed")
    if case.after is not None and (found := case.after(place)):
        wrong.append(found)
    return (
        wrong if len(wrong) <= MOST_FAULTS else [*wrong[:MOST_FAULTS], f"and {len(wrong)} in all"]
    )


def _spoken(case: Case, outcome: Outcome) -> list[str]:
    """Judge stdout and stderr."""
    wrong = []
    try:
        stdout, stderr = (each.decode(case.encoding) for each in (outcome.stdout, outcome.stderr))
    except UnicodeDecodeError as error:
        return [f"output is not {case.encoding} ({error})"]
    for name, text in (("stdout", stdout), ("stderr", stderr)):
        if found := _CONTROL.search(text):
            wrong.append(f"control character {found[0]!r} on {name}")
    lines = stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    beside = [line for line in lines if not line.startswith("error: ")]
    beside = [line for line in beside if not _PROGRESS.fullmatch(line)]
    if case.notes:
        beside = [line for line in beside if not line.startswith("note: ")]
    if beside:
        wrong.append(f"stderr holds {len(beside)} other lines: {beside[0][:300]!r}")
    # An interpreter that starts on a busy machine may meet the signal before the program does.
    silent = outcome.killed and not case.says
    wanted = case.lines if outcome.code and not silent else 0
    if len(errors) != wanted:
        wrong.append(f"{len(errors)} lines of errors on stderr, not {wanted}")
    if any(len(line) > LONGEST_LINE for line in lines):
        wrong.append(f"a line of {max(map(len, lines))} characters on stderr")
    wrong.extend(f"{words!r} on stderr" for words in _UNTRANSLATED if words in stderr)
    if not re.search(case.says, stderr) and (outcome.code or 0 not in case.codes):
        wrong.append(f"stderr does not say {case.says!r}")
    return wrong


def _written(case: Case, outcome: Outcome, place: Place, before: State, after: State) -> list[str]:
    """Judge the files that there are now."""
    wrong = []
    for path in sorted(before.keys() | after.keys()):
        excused = any(Path(path).is_relative_to(place.root / name) for name in case.changes)
        if before.get(path) != after.get(path) and not excused:
            what = "deleted" if path not in after else "changed" if path in before else "written"
            wrong.append(f"{path!r} was {what}")
    outputs = list(place.out.rglob("*")) if place.out.is_dir() else []
    wrong.extend(f"{path} is half-written" for path in outputs if ".partial-" in path.name)
    if outcome.code and not case.writes and outputs:
        wrong.append(f"{outputs[0]} was written though the program failed")
    return wrong
