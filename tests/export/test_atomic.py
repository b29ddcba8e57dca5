"""An interrupted export leaves the old bundle unchanged, and no incomplete one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from glesam_calibration import graph_files
from glesam_export import stages, tracing
from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.manifest import StageName
from glesam_runtime.staging import staged_folder

from .conftest import random_nano

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def old_bundle(nano_bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle that a test replaces."""
    return Path(shutil.copytree(nano_bundle, tmp_path / "bundle"))


def traced_before(bundle: Path, stage: StageName, patch: pytest.MonkeyPatch) -> None:
    """Return a bundle's graph instead of tracing, because these tests are about writing it."""
    model = ir.load(open_bundle(bundle).graph_path(stage))
    program = torch.onnx.ONNXProgram(model, None)
    patch.setattr(torch.onnx, "export", lambda *_, **__: program)


EXPORT_WITHOUT_TRACING = """
import runpy, sys, time
import onnx_ir, torch

traced = sys.argv.pop(1)

def trace(*_, **__):
    torch.onnx.export = lambda *_, **__: time.sleep(600)
    return torch.onnx.ONNXProgram(onnx_ir.load(traced), None)

torch.onnx.export = trace
runpy.run_module("glesam_export", run_name="__main__", alter_sys=True)
"""
"""Runs `glesam-export` with a tracer that returns a given file once and never returns again."""


def start_and_wait_for_files(output: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start an export in a new process, and wait until its first graph is on disk."""
    traced = str(open_bundle(output).graph_path("encoder"))
    arguments = [traced, "onnx", "--preset", "nano", "-o", str(output)]
    program = [sys.executable, "-c", EXPORT_WITHOUT_TRACING, *arguments]
    process = subprocess.Popen(
        program,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # If pytest runs in a shell's background it ignores Ctrl-C, and its children would too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        found = list(output.parent.glob(f".{output.name}.partial-*/encoder.onnx"))
        if found:
            return process, found[0].parent
        assert process.poll() is None, "ended before it wrote anything"
        time.sleep(0.05)
    process.kill()
    raise AssertionError("no graph was written in time")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_cut_short(how: signal.Signals, old_bundle: Path) -> None:
    before = open_bundle(old_bundle).sha256
    process, partial = start_and_wait_for_files(old_bundle)
    process.send_signal(how)
    process.wait(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(how, -how)
    assert open_bundle(old_bundle).sha256 == before
    with pytest.raises(BundleError):
        open_bundle(partial)
    assert partial.exists() == (how == signal.SIGKILL)
    with staged_folder(old_bundle) as folder:  # what the next export begins with
        assert not partial.exists()
        shutil.copytree(old_bundle, folder, dirs_exist_ok=True)
    assert [path.name for path in old_bundle.parent.iterdir()] == [old_bundle.name]


def test_no_space_in_the_middle(
    old_bundle: Path, glesam_export: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = open_bundle(old_bundle).sha256
    traced_before(old_bundle, "encoder", monkeypatch)
    monkeypatch.setattr(graph_files.ir, "save", full)
    weights = ("--preset", "nano", "--random-weights", "0")
    code, _, err = glesam_export("onnx", *weights, "-o", old_bundle)
    assert code == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "no space left" in line
    assert str(old_bundle) in line
    assert "seed 0, untrained" in err, "a model that means nothing is never made silently"
    assert open_bundle(old_bundle).sha256 == before
    assert [path.name for path in old_bundle.parent.iterdir()] == [old_bundle.name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of two megabytes."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no mounting here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("threshold", [graph_files.EXTERNAL_DATA_FROM, 1000])
def test_a_disk_that_is_full(
    threshold: int, small_disk: Path, nano_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test weights inside the graph's file, and in a second file that another library writes."""
    traced_before(nano_bundle, "enhancer", monkeypatch)
    monkeypatch.setattr(graph_files, "EXTERNAL_DATA_FROM", threshold)
    graph = stages.graph(random_nano(), "enhancer")
    with (
        pytest.raises(InputError, match=rf"{small_disk}.*no space left"),
        staged_folder(small_disk / "bundle") as folder,
    ):
        tracing.export(graph, "enhancer", "fp32", 256, 1, folder)
    assert list(small_disk.iterdir()) == []


def test_a_library_that_does_not_say_why(
    nano_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate NumPy's `tofile` on a full disk, whose OSError has no error number."""

    def full(*_: object, **__: object) -> None:
        raise OSError("problem writing element 13312 to file")

    traced_before(nano_bundle, "encoder", monkeypatch)
    monkeypatch.setattr(graph_files.ir, "save", full)
    graph = stages.graph(random_nano(), "encoder")
    with (
        pytest.raises(InputError, match=r"bundle.*no space left"),
        staged_folder(tmp_path / "bundle") as folder,
    ):
        tracing.export(graph, "encoder", "fp32", 256, 1, folder)
