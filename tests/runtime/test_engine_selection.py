"""The right engine is selected when none is named, and checks are remembered."""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import glesam_runtime
from glesam_runtime import BackendError, GleSamPredictor, engine_selection, open_bundle
from glesam_runtime.backends.openvino import OpenVinoEngine
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.engine_selection import select_engine

from .conftest import with_golden, write_manifest


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of remembered checks, which does not exist at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "glesam" / "checked.json"


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat the toy bundle as a large one."""
    monkeypatch.setattr(engine_selection, "_SMALL", 0)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the engines that are compared with a golden file."""
    asked: list[str] = []
    check = engine_selection.golden.check

    def noted(bundle: Any, engine: Any) -> Any:
        asked.append(engine.name)
        return check(bundle, engine)

    monkeypatch.setattr(engine_selection.golden, "check", noted)
    return asked


def test_the_fastest_that_keeps_the_gates(toy_bundle: Path) -> None:
    selected = select_engine(open_bundle(toy_bundle))
    assert selected.engine.name == "openvino"
    assert selected.reason is not None
    assert selected.reason.startswith("openvino 20")
    assert (
        "on cpu in fp32: the fastest here, within the bundle's accuracy limits" in selected.reason
    )


def test_a_golden_file_is_asked_once(toy_bundle: Path, checks: list[str], memory: Path) -> None:
    bundle = open_bundle(toy_bundle)
    select_engine(bundle, stages=["decoder"])
    assert checks == ["openvino"]
    assert list(json.loads(memory.read_text()).values()) == [""]
    select_engine(bundle)
    select_engine(bundle, options=EngineOptions(threads=1))
    assert checks == ["openvino"]
    select_engine(bundle, options=EngineOptions(precision="fp32"))
    assert checks == ["openvino"], "a precision asked for is not judged"
    memory.write_text("[not json")
    select_engine(bundle)
    assert checks == ["openvino", "openvino"]


def test_another_version_of_the_program_checks_again(
    toy_bundle: Path, checks: list[str], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure that an earlier release remembered does not stay for good."""
    bundle = open_bundle(toy_bundle)
    monkeypatch.setattr(glesam_runtime, "__version__", "0.0.9", raising=False)
    assert select_engine(bundle).engine.name == "openvino"
    key, *_ = json.loads(memory.read_text())
    memory.write_text(json.dumps({key: "mask IoU 0.1"}))
    assert select_engine(bundle).engine.name == "onnxruntime"
    assert checks == ["openvino", "onnxruntime"]
    monkeypatch.setattr(glesam_runtime, "__version__", "0.0.10")
    assert select_engine(bundle).engine.name == "openvino"
    assert checks == ["openvino", "onnxruntime", "openvino"]


def test_a_program_without_its_metadata_remembers_nothing(
    toy_bundle: Path, checks: list[str], memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As PyInstaller packs it by default."""

    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", unknown)
    for _ in range(2):
        assert select_engine(open_bundle(toy_bundle)).engine.name == "openvino"
    assert checks == ["openvino", "openvino"]
    assert not memory.exists()


def test_another_bundle_is_another_question(
    toy_bundle: Path, toy_copy: Path, checks: list[str]
) -> None:
    select_engine(open_bundle(toy_bundle))
    manifest = open_bundle(toy_copy).manifest
    golden = load_file(toy_copy / "golden.safetensors")
    golden["enhanced_embeddings"] *= np.float32(1 + 1e-6)
    save_file(golden, toy_copy / "golden.safetensors")
    write_manifest(toy_copy, with_golden(manifest, toy_copy / "golden.safetensors"))
    select_engine(open_bundle(toy_copy))
    assert checks == ["openvino", "openvino"]


def test_one_that_does_not_is_passed_over(
    toy_bundle: Path, checks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OpenVinoEngine.run

    def off(*given: Any) -> dict[str, Any]:
        return {name: value * np.float32(1.01) for name, value in run(*given).items()}

    monkeypatch.setattr(OpenVinoEngine, "run", off)
    bundle = open_bundle(toy_bundle)
    for _ in range(2):
        selected = select_engine(bundle)
        assert selected.engine.name == "onnxruntime"
        assert selected.reason is not None
        assert "not openvino on cpu exceeds the bundle's accuracy limits" in selected.reason
        assert "relative L2" in selected.reason
    assert checks == ["openvino", "onnxruntime"]
    monkeypatch.setattr(engine_selection, "installed", lambda: ["openvino"])
    with pytest.raises(BackendError, match="--backend openvino runs it anyway"):
        select_engine(bundle)


def test_an_engine_that_cannot(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(toy_bundle)
    with pytest.raises(BackendError, match=r"cuda:3.*CUDAExecutionProvider"):
        select_engine(bundle, device="cuda:3")
    with pytest.raises(
        BackendError, match=r"openvino on cpu: .*; onnxruntime on cpu: .*--cuda-graphs"
    ):
        select_engine(bundle, options=EngineOptions(cuda_graphs=True))
    monkeypatch.setattr(engine_selection, "installed", list)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(BackendError, match=r"pip install 'glesam-runtime\[cpu\]'"):
        select_engine(bundle)


def test_one_named_is_not_judged(toy_bundle: Path, checks: list[str]) -> None:
    predictor = GleSamPredictor(toy_bundle, backend="onnxruntime")
    assert predictor.engine.name == "onnxruntime"
    assert predictor.engine_reason is None
    assert checks == []


def test_nothing_can_be_remembered(toy_bundle: Path, memory: Path, checks: list[str]) -> None:
    memory.parent.parent.mkdir()
    memory.parent.write_text("a file where a folder is needed")
    for _ in range(2):
        select_engine(open_bundle(toy_bundle))
    assert checks == ["openvino", "openvino"]


def test_a_home_without_a_cache_is_made_one(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    select_engine(open_bundle(toy_bundle))
    assert (tmp_path / "home/.cache/glesam/checked.json").is_file()
    shutil.rmtree(tmp_path / "home")


@pytest.mark.skipif(os.name == "nt", reason="POSIX users")
@pytest.mark.parametrize("home", [None, "", "relative"])
@pytest.mark.parametrize("cache", [None, "", "relative"])
def test_a_user_without_a_home(
    home: str | None,
    cache: str | None,
    toy_bundle: Path,
    tmp_path: Path,
    checks: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a container with an unknown user id: the check runs, and nothing is remembered."""

    def no_such_user(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", no_such_user)
    for name, value in (("HOME", home), ("XDG_CACHE_HOME", cache)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for _ in range(2):
        assert select_engine(open_bundle(toy_bundle)).engine.name == "openvino"
    assert checks == ["openvino", "openvino"]
    assert list(work.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX files")
@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "deep JSON", "dangling link"])
def test_a_memory_that_is_no_file(
    kind: str, toy_bundle: Path, memory: Path, checks: list[str]
) -> None:
    memory.parent.mkdir(parents=True)
    if kind == "fifo":
        os.mkfifo(memory)
    elif kind == "device":
        memory.symlink_to("/dev/zero")
    elif kind == "folder":
        memory.mkdir()
    elif kind == "deep JSON":
        memory.write_text("[" * 100_000)
    else:
        memory.symlink_to(memory.parent / "none")
    assert select_engine(open_bundle(toy_bundle)).engine.name == "openvino"
    assert checks == ["openvino"]
