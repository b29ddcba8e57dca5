"""Jobs and answers between processes, and what happens if a worker process fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from glesam_benchmark import compare_contenders, machine, plain_graphs, worker_jobs
from glesam_benchmark.contenders import BundleRunner, Contender, PlainRunner, PytorchRunner
from glesam_export.weight_options import WeightOptions
from glesam_runtime.bundle import builtin_bundle_path, open_bundle
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import BackendError, BundleError


@pytest.mark.parametrize(
    "job",
    [
        worker_jobs.Measure(
            "b",
            BundleRunner(RequestedEngine("openvino", "cpu", "bf16", 2, 1, Path("c")), "b"),
            3,
            "m",
        ),
        worker_jobs.Measure(
            "b", PytorchRunner(WeightOptions(sam=Path("x.pth"), gamma=5.0), True), 1, "m"
        ),
        worker_jobs.Measure("b", PlainRunner("folder", "openvino", "bf16", 1), 1, "m"),
        worker_jobs.ExportPlain("b", WeightOptions(preset="nano", random_weights=0), "folder"),
        worker_jobs.MeasureMachine("nano", "nano", None, 4096),
        worker_jobs.Grow("b", RequestedEngine(), 2),
        worker_jobs.ProfileBundle("b", RequestedEngine(cuda_graphs=True), 2),
    ],
)
def test_jobs_arrive_as_they_were_sent(job: worker_jobs.Job) -> None:
    assert worker_jobs.decode(worker_jobs.encode(job), worker_jobs.Job) == job


def test_an_error_there_is_an_error_here(tmp_path: Path) -> None:
    job = worker_jobs.Grow(str(tmp_path / "nowhere"), RequestedEngine(), 1)
    with pytest.raises(BundleError, match="nowhere: no such bundle folder"):
        worker_jobs.run_job(job, worker_jobs.Growth)


def test_a_process_that_ends_without_an_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = worker_jobs.Grow("b", RequestedEngine(), 1)
    program = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(program))
    for body, words in (
        ("kill -9 $$", "ended by SIGKILL; memory may be short"),
        ("echo first >&2; echo 'no such luck' >&2; exit 3", "exit code 3: no such luck"),
        ("exit 0", "exit code 0: it printed nothing"),
    ):
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        with pytest.raises(BackendError, match=words):
            worker_jobs.run_job(job, worker_jobs.Growth)


def test_a_peer_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = open_bundle()
    monkeypatch.setattr(compare_contenders, "_machine", lambda *_: None)
    monkeypatch.setattr(plain_graphs, "holds_export", lambda *_: True)
    contenders = [
        Contender(
            "onnxruntime", "ours", BundleRunner(RequestedEngine("onnxruntime"), str(bundle.path))
        ),
        Contender("broken", "a broken peer", PlainRunner(str(tmp_path), "onnxruntime")),
        Contender(
            "again", "ours again", BundleRunner(RequestedEngine("onnxruntime"), str(bundle.path))
        ),
    ]
    said: list[str] = []

    class Step:
        def __init__(self, what: str) -> None:
            said.append(what)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    plan = compare_contenders.ComparisonPlan(
        bundle, contenders, WeightOptions(), 1, 2, None, ["somebody: left out"]
    )
    found = compare_contenders.compare(plan, Step)
    assert [row.name for row in found.rows] == ["onnxruntime", "again"]
    (failed,) = found.failed
    assert failed.startswith("a broken peer: its process ended with exit code 1")
    assert "encoder.onnx" in failed
    assert "somebody: left out" in found.notes
    assert said.count("a broken peer (1 of 2)") == 1
    assert said.count("ours again (2 of 2)") == 1
    assert "a broken peer (2 of 2)" not in said
    assert compare_contenders.failing_parity(found) == []


def test_one_of_ours_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_contenders, "_machine", lambda *_: None)
    broken = Contender(
        "tensorrt",
        "ours on tensorrt",
        BundleRunner(RequestedEngine("tensorrt"), str(builtin_bundle_path())),
    )
    plan = compare_contenders.ComparisonPlan(open_bundle(), [broken], None, 1, 1, None)
    with pytest.raises(BackendError, match=r"ours on tensorrt: .*ONNX bundle"):
        compare_contenders.compare(plan, lambda _: memoryview(b""))  # any context manager


def test_the_peak_of_memory_is_the_processs_own() -> None:
    """Measure in a child process, so that this process's history does not matter."""
    script = (
        "from glesam_benchmark import machine\n"
        "import numpy as np\n"
        "before = machine.peak_rss()\n"
        "block = np.ones(30_000_000)\n"
        "held = machine.peak_rss()\n"
        "del block\n"
        "kept = machine.peak_rss()\n"
        "assert machine.forget_peak()\n"
        "print(before, held, kept, machine.peak_rss())\n"
    )
    ballast = np.ones(30_000_000)  # a child's peak must not include its parent's memory
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    before, held, kept, after = map(int, done.stdout.split())
    assert before < ballast.nbytes
    assert held - before == pytest.approx(240e6, rel=0.05)
    assert kept == pytest.approx(held, rel=0.01)
    assert after < held - 200e6


def test_what_others_do_is_seen() -> None:
    assert machine.Watch().others() is None  # too short a time to judge
    watch = machine.Watch()
    spin = "import time\nend = time.perf_counter() + 1\nwhile time.perf_counter() < end: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    others = watch.others()
    assert others is not None
    assert 0.2 / (os.cpu_count() or 1) < others <= 1
    watch = machine.Watch()
    end = time.process_time() + 0.6
    while time.process_time() < end:
        pass
    mine = watch.others()
    assert mine is not None
    assert mine <= 1 - 0.5 * 0.6 / (time.perf_counter() - watch.start) / (os.cpu_count() or 1)
