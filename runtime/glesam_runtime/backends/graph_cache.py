"""Keep compiled graphs in the folder of `--cache`, and notice every change of them.

Each graph has a folder of its own. Its record names what the graph was made of and the SHA-256 of
every file. An engine loads only what matches the record; anything else is deleted and made again.

An engine trusts what it loads, so a cache is as trusted as a program: the record shows damage and
exchanged files, but whoever may write to the folder can also write a record. Folders that other
users may write to are therefore refused, and new ones are for the user alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import glesam_runtime
from glesam_runtime.bundle import sha256_of
from glesam_runtime.errors import InputError
from glesam_runtime.machine import cpu_name
from glesam_runtime.staging import staged_file
from glesam_runtime.verbosity import print_note

RECORD = "record.json"
_LARGEST_RECORD = 1 << 16
_OWNER_ONLY = 0o700
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True)
class KeptGraph:
    """The folder of one compiled graph."""

    folder: Path
    made_of: Mapping[str, str]
    """What the graph depends on. Another value of any of them is another folder."""

    def is_intact(self) -> bool:
        """Return whether the folder has exactly the files of its record, and their hashes."""
        recorded = self._recorded()
        if recorded is None or not self.is_recorded() or _is_shared(self.folder.lstat()):
            return False
        return all(recorded[name] == _hash(self.folder / name) for name in recorded)

    def discard_unless_intact(self) -> None:
        """Delete a folder that does not match its record, and say so on stderr.

        Raises:
            InputError: the folder cannot be deleted.
        """
        if os.path.lexists(self.folder) and not self.is_intact():
            self.discard("does not match its record")

    def discard(self, why: str) -> None:
        """Delete the folder, and say so on stderr.

        Raises:
            InputError: the folder cannot be deleted.
        """
        try:
            if self.folder.is_dir() and not self.folder.is_symlink():
                shutil.rmtree(self.folder)
            else:
                self.folder.unlink()
        except OSError as error:
            raise InputError(
                f"{self.folder}: {why} and cannot be deleted ({error.strerror}); delete it, or "
                "leave out --cache"
            ) from error
        print_note(f"{self.folder}: {why}; the graph is compiled again")

    def write_record(self, folder: Path | None = None) -> None:
        """Record the files in the folder, or in the one that is to take its place.

        Raises:
            InputError: the folder cannot be written.
        """
        folder = folder or self.folder
        names = sorted(_names(folder) - {RECORD})
        for path in (folder, *(folder / name for name in names)):
            path.chmod(path.stat().st_mode & ~_WRITABLE_BY_OTHERS)
        record = {
            "made_of": dict(self.made_of),
            "files": {name: _hash(folder / name) for name in names},
        }
        with staged_file(folder / RECORD) as partial:
            partial.write_text(json.dumps(record))
            partial.chmod(partial.stat().st_mode & ~_WRITABLE_BY_OTHERS)

    def is_recorded(self) -> bool:
        """Return whether the record names the files in the folder; hashes are not compared."""
        recorded = self._recorded()
        return recorded is not None and _names(self.folder) == {RECORD, *recorded}

    def sha256(self) -> str:
        """Return the hash of the record, which identifies the bytes of all files."""
        return sha256_of(self.folder / RECORD)

    def _recorded(self) -> dict[str, Any] | None:
        """Return the hashes in the record by file name; None without a record of this graph."""
        path = self.folder / RECORD
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_RECORD:
                return None
            record = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(record, dict) or record.get("made_of") != dict(self.made_of):
            return None
        files = record.get("files")
        return files if isinstance(files, dict) and files else None


def kept_graph(cache: Path, name: str, made_of: Mapping[str, object]) -> KeptGraph:
    """Return where a graph is kept.

    Args:
        cache: the folder of the user.
        name: engine and stage, the start of the folder's name.
        made_of: what the graph depends on, besides the CPU and the version of this program.
    """
    try:
        program = glesam_runtime.__version__
    except PackageNotFoundError:  # a program that was packed without its metadata
        program = ""
    everything = {key: str(value) for key, value in made_of.items()}
    everything |= {"program": program, "cpu": cpu_name()}
    key = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:16]
    return KeptGraph(cache / f"{name}-{key}", everything)


@contextmanager
def opened_cache(cache: Path) -> Iterator[None]:
    """Make the cache folder if needed, and keep other processes and threads out of it meanwhile.

    Raises:
        InputError: the folder cannot be made, or other users may write to it.
    """
    try:
        cache.mkdir(mode=_OWNER_ONLY, parents=True, exist_ok=True)
        _refuse_shared(cache)
        lock = _lock(cache)
    except FileExistsError as error:
        raise InputError(f"{cache}: is a file, --cache needs a folder") from error
    except NotADirectoryError as error:
        raise InputError(f"{cache}: a parent folder is a file; choose another path") from error
    except OSError as error:
        raise InputError(
            f"{cache}: cannot be used as a cache ({error.strerror}); choose another folder or "
            "leave out --cache"
        ) from error
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _refuse_shared(cache: Path) -> None:
    """Refuse a folder that belongs to another user or that others may write to."""
    if _is_shared(cache.stat()):
        raise InputError(
            f"{cache}: belongs to another user or other users may write to it, and engines trust "
            "what they load from a cache; run chmod go-w on it or choose a folder of your own"
        )


def _is_shared(status: os.stat_result) -> bool:
    """Return whether another user than root and this one can change a file or folder."""
    if sys.platform == "win32":  # modes do not tell the rights there
        return False
    return status.st_uid not in (os.geteuid(), 0) or bool(status.st_mode & _WRITABLE_BY_OTHERS)


def _lock(cache: Path) -> int | None:
    """Lock the folder until the returned descriptor is closed; None where that cannot be done.

    Without the lock, two processes that start on an empty cache may both compile, and the later
    one may get an error. The system releases the lock of a process that dies.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(cache, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(OSError):  # some network file systems have no locks
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _names(folder: Path) -> set[str]:
    """Return the names in a folder that is no link; empty if it cannot be read."""
    try:
        return set() if folder.is_symlink() else {path.name for path in folder.iterdir()}
    except OSError:
        return set()


def _hash(path: Path) -> str | None:
    """Return the SHA-256 of a regular file that this user alone may write to, else None."""
    try:
        status = path.lstat()
        return sha256_of(path) if stat.S_ISREG(status.st_mode) and not _is_shared(status) else None
    except OSError:
        return None
