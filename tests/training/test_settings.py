from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import pytest

from glesam_training import settings
from glesam_training.loop import worker_settings


@pytest.mark.parametrize(
    ("device", "cores", "processes", "expected"),
    [("cpu", 16, 1, 0), ("cuda", 16, 1, 15), ("cuda", 16, 4, 3), ("cuda", 1, 1, 1)],
)
def test_a_gpu_has_the_cores_and_a_cpu_keeps_them(
    device: str, cores: int, processes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SimpleNamespace(device=SimpleNamespace(type=device), num_processes=processes)
    monkeypatch.setattr(settings, "PartialState", lambda: state)
    monkeypatch.setattr(settings.os, "cpu_count", lambda: cores)
    assert settings.worker_count(None) == expected
    assert settings.worker_count(2) == 2


def test_workers_come_from_no_fork_of_a_process_with_threads() -> None:
    assert worker_settings(0) == {"num_workers": 0}
    context = worker_settings(2)["multiprocessing_context"]
    assert context in multiprocessing.get_all_start_methods()
    assert context != "fork"


@pytest.mark.parametrize(("faster", "wanted"), [(False, "no"), (True, "bf16")])
def test_auto_is_bfloat16_where_the_cpu_is_faster_with_it(
    faster: bool, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = SimpleNamespace(device=SimpleNamespace(type="cpu"))
    monkeypatch.setattr(settings, "PartialState", lambda: state)
    monkeypatch.setattr(settings, "trains_faster_in_bfloat16", lambda: faster)
    assert settings.precision_to_use("auto") == wanted


@pytest.mark.parametrize("name", ["no", "fp16", "bf16"])
def test_what_was_asked_for_stays(name: str) -> None:
    assert settings.precision_to_use(name) == name
