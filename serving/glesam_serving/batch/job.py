"""Record what a job is, so that the same command resumes it and another one is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from glesam_runtime.errors import InputError
from glesam_runtime.everything.parameters import Parameters
from glesam_runtime.expected_work import ExpectedWork
from glesam_runtime.staging import staged_file
from glesam_serving.batch.plan import Plan, write_plan
from glesam_serving.batch.rows import Row
from glesam_serving.batch.writing_errors import remedy

_RECORD, _PLAN = "job.json", "plan"
_VERSION = 1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What decides the rows of a job. Two runs of one job give the same rows."""

    version: int = _VERSION
    inputs: tuple[str, ...]
    """The arguments of the command."""
    recursive: bool
    root: str | None
    bundle: str
    """The hash of the bundle."""
    backend: str
    device: str | None
    precision: str | None
    enhance: bool | Literal["auto"]
    multimask: bool
    depth: str
    prompts: tuple[dict[str, Any], ...]
    """The prompts of images that have none of their own."""
    everything: dict[str, Any] | None
    """The parameters of everything-mode."""
    masks: str
    """What is written beside Parquet: `rle` for nothing, `png` for a file a mask."""
    batch_size: int
    limit: int | None
    timestep: int | None = None
    """The timestep that the enhancer runs; None is the bundle's default."""


def work_of(job: Job, plan: Plan) -> ExpectedWork:
    """Return the work of a whole job, so that a run that resumes it takes the same engine.

    Nothing is measured, because processes that start together would measure each other.
    """
    images = job.batch_size * len(plan)
    if job.everything is None:
        return ExpectedWork(images, images, measure=False)
    whole = Parameters(**job.everything).work_on(images)
    return dataclasses.replace(whole, measure=False)


class Opened(msgspec.Struct, frozen=True):
    """A job in its folder."""

    out: Path
    job: Job
    plan: Plan
    count: int
    """Rows of the job."""
    resumed: bool


class _Record(msgspec.Struct):
    job: Job
    rows: int
    plan: str
    """The hash of the plan's offsets, so that a plan of another job is noticed."""


def open_job(out: Path, job: Job, rows: Iterable[Row], planned: Callable[[], object]) -> Opened:
    """Open the folder of a job, and plan the job if the folder is new.

    The record is written last: without it nothing of the folder counts, and planning starts again.

    Args:
        out: the folder, absolute.
        job: what the command asks for.
        rows: the rows; they are read only if the job is new.
        planned: called when all rows of a new job are read, before anything of it is kept. If it
            raises, nothing is left behind.

    Raises:
        InputError: the folder holds something else or another job, or the input has no rows.
    """
    record = out / _RECORD
    if record.is_file():
        return _resume(out, job)
    if out.exists() and not out.is_dir():
        raise InputError(f"-o {out}: is a file, a folder is needed")
    if out.exists():
        foreign = [each.name for each in out.iterdir() if not _is_own(each.name)]
        if foreign:
            raise InputError(
                f"-o {out}: holds {sorted(foreign)[0]} and no job; choose another folder"
            )
    made = not out.exists()
    partial = out / f".plan-{os.getpid()}-{os.urandom(4).hex()}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        count = write_plan(partial, _checked(rows, job), job.batch_size, job.limit)
        if not count:
            raise InputError("the input names no images")
        planned()
        try:
            partial.rename(out / _PLAN)
        except OSError:  # a plan without a record: of a killed run, or of one that runs now
            if record.is_file():
                return _resume(out, job)
            shutil.rmtree(out / _PLAN)
            partial.rename(out / _PLAN)
        with staged_file(record) as staged:
            content = _Record(job, count, _plan_hash(out / _PLAN))
            staged.write_bytes(msgspec.json.format(msgspec.json.encode(content)))
    except OSError as error:
        raise InputError(f"-o {out}: {remedy(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if made and not record.is_file():
            shutil.rmtree(out, ignore_errors=True)
    return Opened(out, job, Plan(out / _PLAN), count, False)


def read_job(out: Path) -> Opened:
    """Read the job of a folder.

    Raises:
        InputError: the folder holds no job, or a damaged one.
    """
    record = out / _RECORD
    try:
        found = msgspec.json.decode(record.read_bytes(), type=_Record)
    except OSError as error:
        raise InputError(f"{out}: holds no job of glesam-batch; check the path") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{record}: not a job record ({error})") from error
    if found.job.version != _VERSION:
        raise InputError(
            f"{record}: a job of version {found.job.version}, this program reads {_VERSION}"
        )
    if _plan_hash(out / _PLAN) != found.plan:
        raise InputError(f"{out / _PLAN}: altered or missing; start the job in another folder")
    return Opened(out, found.job, Plan(out / _PLAN), found.rows, True)


def _resume(out: Path, job: Job) -> Opened:
    opened = read_job(out)
    # Through JSON, as tuples and lists are one there.
    wanted = msgspec.json.decode(msgspec.json.encode(job))
    had = msgspec.json.decode(msgspec.json.encode(opened.job))
    for name, value in wanted.items():
        if had[name] != value:
            raise InputError(
                f"-o {out}: holds another job, whose {name} is {_short(had[name])} instead of "
                f"{_short(value)}; choose another folder, or repeat that job's command"
            )
    return opened


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_own(name: str) -> bool:
    return name in (_PLAN, "masks", "failed", "started") or name.startswith((".plan-", ".job"))


def _plan_hash(folder: Path) -> str:
    """Return the hash of the plan's offsets, or nothing if the plan is missing."""
    try:
        return hashlib.sha256((folder / "offsets.u64").read_bytes()).hexdigest()
    except OSError:
        return ""


def _checked(rows: Iterable[Row], job: Job) -> Iterator[Row]:
    """Refuse rows without prompts, and prompts that are not used."""
    for row in rows:
        if job.everything is not None and row.prompts:
            raise InputError(
                f"{row.image}: has prompts, but --everything takes none; leave out one of them"
            )
        if job.everything is None and not row.prompts and not job.prompts:
            raise InputError(
                f"{row.image}: has no prompt; give --box, --points, --prompts or --everything, or "
                "a table with prompts"
            )
        yield row
