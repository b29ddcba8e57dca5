"""Files are complete or absent, also after an exception, Ctrl-C, kill -9 and a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from glesam_runtime import InputError, staging
from glesam_runtime.staging import staged_file, staged_folder

OURS = '{"format": "glesam-bundle", "version": 99}'


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_after_writing(path: Path, error: type[BaseException]) -> None:
    path.write_text("half")
    raise error


def old_bundle(folder: Path) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text(OURS)
    (folder / "old.onnx").write_text("old")
    return folder


def test_a_new_folder(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "bundle"
    with staged_folder(target) as folder:
        assert folder.parent == target.parent
        assert not target.exists()
        (folder / "x").write_text("x")
    assert names(target) == ["x"]
    assert names(target.parent) == ["bundle"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_files_are_as_open_as_the_folder(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "bundle") as folder:
        (folder / "private").touch(mode=0o600)
    (tmp_path / "plain").touch()
    mode = (tmp_path / "bundle" / "private").stat().st_mode
    assert mode == (tmp_path / "plain").stat().st_mode


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "e") as folder:
        pass
    with staged_folder(tmp_path / "e") as folder:
        (folder / "x").touch()
    assert names(tmp_path / "e") == ["x"]


@pytest.mark.parametrize("atomic", [True, False])
def test_a_bundle_is_replaced(
    atomic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = old_bundle(tmp_path / "bundle")
    if not atomic:
        monkeypatch.setattr(staging, "_exchange", lambda first, second: False)
    with staged_folder(target) as folder:
        (folder / "new.onnx").write_text("new")
        assert names(target) == ["manifest.json", "old.onnx"]
    assert names(target) == ["new.onnx"]
    assert names(tmp_path) == ["bundle"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2 is Linux's")
def test_the_exchange_is_atomic_here(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert staging._exchange(tmp_path / "a", tmp_path / "b")
    assert names(tmp_path / "a") == ["b"]


def test_a_failed_second_rename_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = old_bundle(tmp_path / "bundle")
    monkeypatch.setattr(staging, "_exchange", lambda first, second: False)
    real, calls = Path.rename, []

    def rename(self: Path, to: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "full")
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(InputError, match="no space left"), staged_folder(target) as folder:
        (folder / "new.onnx").touch()
    assert names(target) == ["manifest.json", "old.onnx"]
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_there(error: type[BaseException], tmp_path: Path) -> None:
    target = old_bundle(tmp_path / "bundle")
    for place in (target, tmp_path / "deep" / "new"):
        with pytest.raises(error), staged_folder(place) as folder:
            fail_after_writing(folder / "half", error)
    assert names(target) == ["manifest.json", "old.onnx"]
    assert names(tmp_path) == ["bundle"]


def test_what_is_not_a_bundle_stays(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "file").touch()
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "app"}')
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "manifest.json").write_text("[" * 200_000)
    for name, words in (
        ("deep", "exists and is not a bundle"),
        ("photos", "exists and is not a bundle"),
        ("web", "exists and is not a bundle"),
        ("file", "is a file"),
    ):
        with pytest.raises(InputError, match=words), staged_folder(tmp_path / name):
            pytest.fail("the block must not run")
    assert names(tmp_path) == ["deep", "file", "photos", "web"]


def test_a_link_to_a_bundle_keeps_pointing_to_it(tmp_path: Path) -> None:
    target = old_bundle(tmp_path / "v1")
    (tmp_path / "current").symlink_to(target)
    with staged_folder(tmp_path / "current") as folder:
        (folder / "new").touch()
    assert (tmp_path / "current").is_symlink()
    assert names(target) == ["new"]


def test_kill_leaves_the_old_bundle_and_the_next_run_clears_up(tmp_path: Path) -> None:
    target = old_bundle(tmp_path / "bundle")
    script = (
        "import os, signal, sys\n"
        "from glesam_runtime.staging import staged_folder\n"
        "with staged_folder(sys.argv[1]) as folder:\n"
        "    (folder / 'manifest.json').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert names(target) == ["manifest.json", "old.onnx"]
    assert len(names(tmp_path)) == 2  # the dead process's partial folder
    living = tmp_path / f".bundle.partial-{staging._system()}-{os.getpid()}-00000000"
    living.mkdir()
    with staged_folder(target) as folder:
        (folder / "new").touch()
    assert names(tmp_path) == [living.name, "bundle"]


@pytest.mark.parametrize("make", [staged_file, staged_folder])
def test_a_writer_in_another_container_keeps_its_work(make: Any, tmp_path: Path) -> None:
    """Its process id means nothing here: here the process of that id is dead, or another one."""
    dead = 2**22 + 1  # above Linux's highest process id
    there, here = (
        tmp_path / f".out.partial-{system}-{dead}-00000000"
        for system in ("0123abcd", staging._system())
    )
    there.mkdir()
    here.mkdir()
    with make(tmp_path / "out") as partial:
        assert names(tmp_path)[:1] == [there.name]
        assert not here.exists()
        (partial / "x" if partial.is_dir() else partial).touch()
    assert names(tmp_path) == [there.name, "out"]


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_containers_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same host name and boot, another numbering of processes."""
    here = staging._system.__wrapped__()
    assert here == staging._system.__wrapped__()
    monkeypatch.setattr(Path, "readlink", lambda self: Path("pid:[4026532999]"))
    assert staging._system.__wrapped__() != here


@pytest.mark.parametrize("make", [staged_file, staged_folder])
def test_long_names(make: Any, tmp_path: Path) -> None:
    """A name of 255 bytes is written; one byte more is one line that names it."""
    longest = tmp_path / ("\u00e9" * 127 + "x")
    for _ in range(2):
        with make(longest) as partial:
            assert len(os.fsencode(partial.name)) < 120
            (partial / "manifest.json" if partial.is_dir() else partial).write_text(OURS)
        assert names(tmp_path) == [longest.name]
    with pytest.raises(InputError, match="its name is too long"), make(f"{longest}x") as partial:
        (partial / "x" if partial.is_dir() else partial).touch()
    assert names(tmp_path) == [longest.name]


def test_the_first_error_is_the_one_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EACCES, "denied", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(ValueError, match="first"), staged_file(tmp_path / "a.png"):
        raise ValueError("first")


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="bundle: no space left"),
        staged_folder(tmp_path / "bundle"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def test_faults_elsewhere_are_not_blamed_on_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), staged_folder(tmp_path / "bundle"):
        raise PermissionError(errno.EACCES, "denied", "/somewhere/else.pth")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_text("old")
    with pytest.raises(ValueError), staged_file(path) as partial:  # noqa: PT011 - raised below
        fail_after_writing(partial, ValueError)
    assert path.read_text() == "old"
    with staged_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["mask.png"]


def test_a_file_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a folder"), staged_file(tmp_path / "folder"):
        pytest.fail("the block must not run")
    for place in ("file", "none"):
        target = tmp_path / place / "mask.png"
        with pytest.raises(InputError, match="its folder does not exist"), staged_file(target):
            pytest.fail("the block must not run")
    with pytest.raises(InputError, match="a parent folder is a file"):
        staged_folder(tmp_path / "file" / "bundle").__enter__()
    assert names(tmp_path) == ["file", "folder"]
