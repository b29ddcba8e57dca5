"""Write a folder or file atomically: it appears under its name complete or not at all.

The data is written to a hidden sibling `.<name>.partial-<system>-<pid>-<random>` on the same file
system, which is renamed last. A long name is shortened to a hash. A process that is killed leaves
its sibling behind; the next process of the same system that writes the same name removes it.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from glesam_runtime.errors import InputError
from glesam_runtime.manifest import FORMAT, MANIFEST_FILE
from glesam_runtime.termination import partial_work

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_LONGEST_LABEL = 64
"""Bytes of a name that its temporary name repeats; most file systems allow 255 for the whole."""


@contextmanager
def staged_folder(
    destination: str | os.PathLike[str], *, replaces_bundle: bool = True
) -> Iterator[Path]:
    """Yield an empty folder that becomes `destination` when the block ends without an error.

    `destination` stays unchanged until then, and for good if the block raises.

    Args:
        destination: a path that does not exist, an empty folder, or a bundle to replace.
        replaces_bundle: whether an existing bundle may be replaced. Only what writes a bundle
            replaces one; a site or files for a tool in its place would lose it.

    Raises:
        InputError: `destination` is something else, or cannot be written.
    """
    # A symbolic link stays, its target is replaced. Path.resolve raises for a loop of links.
    final = Path(os.path.realpath(destination))
    with _friendly(final):
        _refuse_foreign(final, replaces_bundle)
        partial = _partial_name(final)
        parents = [parent for parent in final.parents if not parent.exists()]
        if not (parents[-1] if parents else final).parent.is_dir():
            raise InputError(f"{final}: a parent folder is a file; choose another path")
    try:
        with _friendly(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            _clear_stale(final)
            partial_work.add(partial)
            partial.mkdir()
        with _friendly(final):
            yield partial
            # Some writers create files that only the user can read. Give them the folder's mode.
            readable = partial.stat().st_mode & 0o666
            for path in sorted(partial.rglob("*")):
                if path.is_file():
                    path.chmod(readable)
                _sync(path)
            _sync(partial)
            # The destination may have changed while the block ran.
            _refuse_foreign(final, replaces_bundle)
            _put_in_place(partial, final)
            _sync(final.parent)
    finally:
        # After a rename `partial` is gone; after an exchange it is the old folder.
        shutil.rmtree(partial, ignore_errors=True)
        partial_work.discard(partial)
        if not final.exists():
            for parent in parents:
                # Keep a parent that was not created or that another program uses by now.
                with suppress(OSError):
                    parent.rmdir()


@contextmanager
def staged_file(destination: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a file to write; it becomes `destination` if the block does not raise.

    Raises:
        InputError: `destination` cannot be written.
    """
    final = Path(destination).absolute()
    partial = _partial_name(final)
    with _friendly(final):
        if final.is_dir():
            raise InputError(f"{final}: is a folder, a file is needed")
        if not final.parent.is_dir():
            raise InputError(f"{final}: its folder does not exist")
        _clear_stale(final)
    try:
        partial_work.add(partial)
        with _friendly(final):
            yield partial
            _sync(partial)
            partial.replace(final)
    finally:
        with suppress(OSError):  # the error of the block is the one to report
            partial.unlink()
        partial_work.discard(partial)


def check_folder(folder: Path, option: str = "-o") -> None:
    """Check that a path is a folder or can become one, before long work for it.

    Raises:
        InputError: it is a file, or lies in one. The message names the option.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{option} {folder}: is a file, a folder is needed")
    if any(parent.is_file() for parent in folder.absolute().parents):
        raise InputError(f"{option} {folder}: a parent folder is a file; choose another path")


def _partial_name(final: Path) -> Path:
    return final.with_name(
        f".{_label(final)}.partial-{_system()}-{os.getpid()}-{os.urandom(4).hex()}"
    )


def _label(final: Path) -> str:
    """Return a file's name for its temporary name, or a hash if the name is long."""
    raw = os.fsencode(final.name)
    return final.name if len(raw) <= _LONGEST_LABEL else hashlib.sha256(raw).hexdigest()[:16]


@cache
def _system() -> str:
    """Return a hash that names this run of the host and its numbering of processes.

    Containers that write to the same volume number their processes independently, so a process id
    alone does not tell whether a writer is alive.
    """
    named = [platform.node()]
    with suppress(OSError):
        named.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        named.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(named).encode(errors="replace")).hexdigest()[:8]


def _refuse_foreign(final: Path, replaces_bundle: bool) -> None:
    """Refuse to replace anything but an empty folder and, if that is allowed, a bundle."""
    if not final.exists():
        return
    if not final.is_dir():
        raise InputError(f"{final}: is a file, a folder is needed")
    try:
        empty = next(final.iterdir(), None) is None
    except OSError as error:
        raise InputError(f"{final}: cannot be read ({error.strerror})") from error
    if not empty and not replaces_bundle:
        raise InputError(f"{final}: exists; choose another folder or remove this one")
    if not empty and not _is_bundle(final):
        raise InputError(
            f"{final}: exists and is not a bundle; choose another folder or remove this one"
        )


def _is_bundle(folder: Path) -> bool:
    """Return whether the folder has a manifest of this project, of any version."""
    try:
        manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(manifest, dict) and manifest.get("format") == FORMAT


def _clear_stale(final: Path) -> None:
    """Remove the partial files and folders that dead processes of this system left for this name.

    Whether those of other systems are alive cannot be told, so they stay.
    """
    label = re.escape(_label(final))
    pattern = re.compile(rf"\.{label}\.partial-{_system()}-(\d+)-[0-9a-f]{{8}}")
    for path in final.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or _is_alive(int(match[1])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # another process may be faster, or own the file
                path.unlink()


def _is_alive(pid: int) -> bool:
    if sys.platform == "win32":  # on Windows os.kill(pid, 0) ends the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _put_in_place(partial: Path, final: Path) -> None:
    """Rename `partial` to `final`; the old `final` ends up under the name of `partial`."""
    if not final.exists():
        partial.rename(final)
        return
    if _exchange(partial, final):
        return
    # Without an atomic exchange the name is free for an instant, but never half written.
    aside = _partial_name(final)
    final.rename(aside)
    try:
        partial.rename(final)
    except BaseException:
        aside.rename(final)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names atomically; return False if the system or file system cannot."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = (os.fsencode(first), os.fsencode(second))
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a power cut leaves no empty file."""
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _friendly(final: Path) -> Iterator[None]:
    """Turn the usual disk errors into an InputError that names the path and a remedy."""
    remedies = {
        errno.ENOSPC: "no space left; free some or choose another disk",
        errno.EDQUOT: "disk quota reached; free some space or choose another disk",
        errno.EACCES: "no permission to write here",
        errno.EPERM: "no permission to write here",
        errno.EROFS: "the file system is read-only",
        errno.ENOTDIR: "a parent folder is a file; choose another path",
        errno.ENAMETOOLONG: "its name is too long",
    }
    try:
        yield
    except OSError as error:
        remedy = remedies.get(error.errno or 0)
        # The block may also read files elsewhere; their errors are not about this path.
        elsewhere = isinstance(error.filename, str | os.PathLike) and not Path(
            error.filename
        ).absolute().is_relative_to(final.parent)
        if remedy is None or elsewhere:
            raise
        raise InputError(f"{final}: {remedy}") from error
