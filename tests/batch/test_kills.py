"""Rows survive real kills of workers, of a node of three, and of the driver.

They are then those of an undisturbed run, none missing and none twice.

GLESAM_KILLS is the number of seeds, by default 2.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import batch, command, failed_of, masks_of

pytest.importorskip("ray")
psutil = pytest.importorskip("psutil")

SEEDS = range(int(os.environ.get("GLESAM_KILLS", "2")))
CHUNKS = 24
ADDRESS = "127.0.0.2"
"""Ray replaces 127.0.0.1 by the machine's own address, on which these nodes do not listen."""
HEALTH = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 3,
}


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
        time.sleep(0.05)


def start(*words: str | Path) -> subprocess.Popen[Any]:
    return subprocess.Popen(
        command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def workers_of(pid: int) -> list[Any]:
    """Return the worker processes of Ray below a process, as they call themselves.

    Ray's agents are not among them: a node ends with its agent, and this machine is the only node.
    """
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        try:
            if process.cmdline() and process.cmdline()[0].startswith(_WORKERS):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_driver_and_workers_killed_on_one_machine(
    seed: int, pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    out = tmp_path / "out"
    words = (pictures, "-o", out, "--batch-size", "2")
    driver = start(*words)
    wait_for(out, rng.randint(1, CHUNKS // 3), driver)
    victims = workers_of(driver.pid)
    assert victims
    rng.choice(victims).kill()
    wait_for(out, rng.randint(CHUNKS // 3 + 1, 2 * CHUNKS // 3), driver)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = written(out)
    assert before < CHUNKS
    done = batch(*words)
    assert f"resuming {out}" in done.stderr
    assert masks_of(out) == masks_of(undisturbed)
    assert failed_of(out) == []
    assert not list(out.glob("*/*/.part-*"))


@pytest.mark.parametrize("seed", SEEDS)
def test_node_and_driver_killed_on_three_nodes(
    seed: int, pictures: Path, undisturbed: Path, tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    rng = random.Random(1000 + seed)
    out = tmp_path / "out"
    head = {
        "num_cpus": 2,
        "include_dashboard": False,
        "node_ip_address": ADDRESS,
        "object_store_memory": 200 << 20,
        "_system_config": HEALTH,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [
            cluster.add_node(num_cpus=2, node_ip_address=ADDRESS, object_store_memory=200 << 20)
            for _ in range(2)
        ]
        words = (pictures, "-o", out, "--batch-size", "2", "--address", cluster.address)
        words += ("--actors", "2")
        driver = start(*words)
        wait_for(out, rng.randint(2, CHUNKS // 3), driver)
        cluster.remove_node(rng.choice(nodes), allow_graceful=False)
        wait_for(out, rng.randint(CHUNKS // 3 + 1, 2 * CHUNKS // 3), driver)
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
        assert written(out) < CHUNKS
        batch(*words)
    finally:
        cluster.shutdown()
    assert masks_of(out) == masks_of(undisturbed)
    assert failed_of(out) == []
