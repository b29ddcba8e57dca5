"""An export that is cut short leaves what was there, and no half bundle."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from glesam_export import onnx as tracing
from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import BundleError

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def old_bundle(nano_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that is about to be replaced."""
    return Path(shutil.copytree(nano_bundle, tmp_path / "bundle"))


def start_and_wait_for_files(output: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """An export in a process of its own, caught when its first graph is on disk."""
    program = [sys.executable, "-m", "glesam_export", "onnx", "--preset", "nano", "-o", str(output)]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = list(output.parent.glob(f".{output.name}.partial-*/encoder.onnx"))
        if found:
            return process, found[0].parent
        assert process.poll() is None, "ended before it wrote anything"
        time.sleep(0.05)
    process.kill()
    raise AssertionError("no graph was written in time")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_cut_short(how: signal.Signals, old_bundle: Path) -> None:
    before = open_bundle(old_bundle).sha256
    process, partial = start_and_wait_for_files(old_bundle)
    process.send_signal(how)
    process.wait(timeout=60)
    assert process.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert open_bundle(old_bundle).sha256 == before
    with pytest.raises(BundleError):
        open_bundle(partial)
    assert partial.exists() == (how == signal.SIGKILL)


def test_no_space_in_the_middle(
    old_bundle: Path, glesam_export: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = open_bundle(old_bundle).sha256
    monkeypatch.setattr(tracing.onnx_ir, "save", full)
    code, _, err = glesam_export("onnx", "--preset", "nano", "-o", old_bundle)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "no space left" in line
    assert str(old_bundle) in line
    assert open_bundle(old_bundle).sha256 == before
    assert [path.name for path in old_bundle.parent.iterdir()] == [old_bundle.name]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_full(glesam_export: Run, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no mounting here")
    try:
        code, _, err = glesam_export("onnx", "--preset", "nano", "-o", disk / "bundle")
        assert code == 2
        assert "no space left" in err
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
