"""Provide glesam-bench in this process, and one run with peers that several tests read."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from glesam_runtime.machine import multiplies_bfloat16

IN_BFLOAT16 = ("pytorch-bf16", "plain-openvino-bf16")
PEERS = ("pytorch", "plain-onnxruntime", *(IN_BFLOAT16 if multiplies_bfloat16() else ()))
"""Without torch.compile, which compiles for minutes."""


def run_bench(*arguments: object) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    from glesam_benchmark.cli import app
    from glesam_runtime.console import exit_code_of

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = exit_code_of(app, "glesam-bench", [str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


@pytest.fixture
def glesam_bench() -> Callable[..., tuple[int, str, str]]:
    return run_bench


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run jobs in this process, which has loaded torch anyway."""
    from glesam_benchmark import worker, worker_jobs

    monkeypatch.setattr(worker_jobs, "run_job", lambda job, answer: worker.do(job))


@dataclass(frozen=True)
class Benched:
    """The output of `glesam-bench nano --peer ...`."""

    printed: str
    document: dict[str, Any]
    output: Path
    work: Path


@pytest.fixture(scope="session")
def benched(tmp_path_factory: pytest.TempPathFactory) -> Benched:
    """Measure the built-in nano on both engines and up to four peers, in two rounds; read-only."""
    from glesam_benchmark import compare_contenders

    folder = tmp_path_factory.mktemp("bench")
    peers = [word for name in PEERS for word in ("--peer", name)]
    backends = "--backend", "openvino", "--backend", "onnxruntime"
    options = "--rounds", "2", "--threads", "1", "--work", folder / "work", "-o", folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_contenders, "MATRIX_SIDE", 256)
        code, out, err = run_bench("nano", *backends, *peers, *options)
    assert code == 0, err
    document = json.loads((folder / "out/bench.json").read_text())
    return Benched(out, document, folder / "out", folder / "work")
