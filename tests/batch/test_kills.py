"""Rows survive real kills of workers, of a node of three, and of the driver.

They are then those of an undisturbed run, none missing and none twice.

GLESAM_KILLS is the number of seeds, by default 2. One machine has at most 4 of them, as a run of
three nodes holds all that it does.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import batch, command, failed_of, masks_of

ray = pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

KILLS = int(os.environ.get("GLESAM_KILLS", "2"))
IMAGES, PER_CHUNK = 32, 2
CHUNKS = IMAGES // PER_CHUNK
JOB = ("--limit", str(IMAGES), "--batch-size", str(PER_CHUNK))
ADDRESS = "127.0.0.2"
"""Ray replaces 127.0.0.1 by the machine's own address, on which these nodes do not listen."""
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}
NODE = {
    "num_cpus": 1,
    "node_ip_address": ADDRESS,
    "object_store_memory": 200 << 20,
}
DRIVERS: list[subprocess.Popen[Any]] = []
_WORKERS = ("ray::Map", "ray::IDLE")


def written(out: Path) -> int:
    return len(list(out.glob("masks/*/*.parquet")))


def wait_for(out: Path, parts: int, driver: subprocess.Popen[Any]) -> None:
    """Wait until a job has written some parts."""
    deadline = time.monotonic() + 240
    while written(out) < parts:
        if driver.poll() is not None:
            assert driver.stderr is not None
            pytest.fail(f"the driver ended: {driver.stderr.read().decode()}")
        assert time.monotonic() < deadline, f"{written(out)} of {parts} parts"
        time.sleep(0.02)


def start(*words: str | Path) -> subprocess.Popen[Any]:
    driver = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    DRIVERS.append(driver)
    return driver


def end(driver: subprocess.Popen[Any]) -> None:
    """Kill a driver without a warning."""
    assert driver.stderr is not None
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    driver.stderr.close()


@pytest.fixture(autouse=True)
def no_driver_stays() -> Iterator[None]:
    """Kill the drivers of a test that failed before it did."""
    yield
    for driver in DRIVERS:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
    DRIVERS.clear()


@pytest.fixture(scope="module")
def expected(undisturbed: Path) -> list[dict[str, Any]]:
    """Return the rows of an undisturbed run, which all seeds share."""
    return [row for row in masks_of(undisturbed) if row["row"] < IMAGES]


def workers_of(pid: int) -> list[Any]:
    """Return the worker processes of Ray below a process, as they call themselves.

    Ray's agents are not among them: a node ends with its agent (test_local_cluster).
    """
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.cmdline() and process.cmdline()[0].startswith(_WORKERS):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("seed", range(min(KILLS, 4)))
def test_driver_and_workers_killed_on_one_machine(
    seed: int, pictures: Path, expected: list[dict[str, Any]], tmp_path: Path
) -> None:
    rng = random.Random(seed)
    out = tmp_path / "out"
    words = (pictures, "-o", out, *JOB)
    driver = start(*words)
    wait_for(out, rng.randint(1, CHUNKS // 3), driver)
    victims = workers_of(driver.pid)
    assert victims
    rng.choice(victims).kill()
    wait_for(out, rng.randint(CHUNKS // 3 + 1, 2 * CHUNKS // 3), driver)
    end(driver)
    assert written(out) < CHUNKS
    done = batch(*words)
    assert f"resuming {out}" in done.stderr
    assert masks_of(out) == expected
    assert failed_of(out) == []
    assert not list(out.glob("*/*/.part-*"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Yield a cluster of a head and two nodes; a test that kills a node gives it another one."""
    from ray.cluster_utils import Cluster

    head = {**NODE, "include_dashboard": False, "_system_config": HEALTH}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            made.add_node(**NODE)
        yield made
    finally:
        made.shutdown()


@pytest.mark.parametrize("seed", range(KILLS))
def test_node_and_driver_killed_on_three_nodes(
    seed: int, pictures: Path, expected: list[dict[str, Any]], cluster: Any, tmp_path: Path
) -> None:
    """A node dies at about a third and the driver at about two thirds; the same command ends it."""
    rng = random.Random(1000 + seed)
    out = tmp_path / "out"
    words = (pictures, "-o", out, *JOB, "--address", cluster.address, "--actors", "2")
    driver = start(*words)
    wait_for(out, rng.randint(2, CHUNKS // 3), driver)
    victim = rng.choice(sorted(cluster.worker_nodes, key=lambda node: str(node.unique_id)))
    cluster.remove_node(victim, allow_graceful=False)
    wait_for(out, rng.randint(CHUNKS // 3 + 1, 2 * CHUNKS // 3), driver)
    end(driver)
    assert written(out) < CHUNKS
    batch(*words)
    cluster.add_node(**NODE)
    assert masks_of(out) == expected
    assert failed_of(out) == []


def test_a_cluster_of_its_own_beside_another(
    pictures: Path, expected: list[dict[str, Any]], cluster: Any, tmp_path: Path
) -> None:
    """Without --address a job does not join a cluster that runs on this machine."""
    out = tmp_path / "out"
    batch(pictures, "-o", out, "--limit", "4", "--batch-size", "2")
    assert masks_of(out) == [row for row in expected if row["row"] < 4]
