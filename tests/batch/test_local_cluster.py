"""A cluster of this machine ends with its driver, and a driver that loses it says so."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

from glesam_serving.batch.watcher import processes_of  # noqa: E402

from .conftest import batch, masks_of  # noqa: E402
from .test_kills import IMAGES, JOB, end, no_driver_stays, start, wait_for  # noqa: E402

__all__ = ["no_driver_stays"]

if not Path("/proc/self/fd").is_dir():
    pytest.skip("needs /proc", allow_module_level=True)


def wait_for_processes(driver: subprocess.Popen[Any], count: int) -> list[int]:
    """Wait until the local cluster of a driver has so many processes, and return them."""
    deadline = time.monotonic() + 120
    while len(found := processes_of(driver.pid)) < count:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def assert_all_end(driver: subprocess.Popen[Any], processes: list[int]) -> None:
    deadline = time.monotonic() + 30
    left = processes
    while left:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
        left = [each for each in {*processes, *processes_of(driver.pid)} if psutil.pid_exists(each)]


@pytest.mark.parametrize("count", [4, 8])
def test_a_killed_driver_leaves_no_process_while_it_starts(
    count: int, pictures: Path, tmp_path: Path
) -> None:
    """With few processes Ray's servers start, with more its agents and workers."""
    driver = start(pictures, "-o", tmp_path / "out", *JOB)
    processes = wait_for_processes(driver, count)
    end(driver)
    assert_all_end(driver, processes)


def test_a_killed_driver_leaves_no_process_while_it_works(pictures: Path, tmp_path: Path) -> None:
    driver = start(pictures, "-o", tmp_path / "out", *JOB)
    wait_for(tmp_path / "out", 1, driver)
    processes = processes_of(driver.pid)
    assert len(processes) > 5
    end(driver)
    assert_all_end(driver, processes)


@pytest.mark.parametrize("name", ["ray::DashboardAgent", "raylet"])
def test_a_lost_node_ends_the_driver_with_one_line(
    name: str, pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """A node ends with its agent. The same command then goes on."""
    out = tmp_path / "out"
    words = (pictures, "-o", out, *JOB)
    driver = start(*words)
    wait_for(out, 2, driver)
    (victim,) = (
        process
        for process in map(psutil.Process, processes_of(driver.pid))
        if process.cmdline() and process.cmdline()[0].endswith(name)
    )
    victim.kill()
    _, printed = driver.communicate(timeout=120)
    lines = printed.decode().splitlines()
    errors = [line for line in lines if re.match("error", line)]
    assert len(errors) == 1, printed.decode()
    assert "start the same command again, which resumes the job" in errors[0]
    assert "Traceback" not in printed.decode()
    assert driver.returncode
    done = batch(*words)
    assert f"resuming {out}" in done.stderr
    assert masks_of(out) == [row for row in masks_of(undisturbed) if row["row"] < IMAGES]
