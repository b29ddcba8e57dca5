"""The differences between the libraries are hidden, and misfitting engines are found."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glesam_runtime.backends.tensorrt import Gpu, check_gpu, check_library
from glesam_runtime.backends.tensorrt_api import (
    FAMILIES,
    Api,
    import_family,
    logger_of,
    system_name,
    version_tuple,
)
from glesam_runtime.errors import BackendError
from glesam_runtime.target import EngineBuild, EngineFamily, Target

NUMBERS = st.integers(0, 99)


def library(version: str, **attributes: object) -> Any:
    module: Any = ModuleType("library")
    vars(module).update(__version__=version, **attributes)
    return module


TENSORRT_10 = library(
    "10.13.3.9", NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
)
TENSORRT_11 = library(
    "11.4.0.1", NetworkDefinitionCreationFlag=SimpleNamespace(), ComputeCapability=None
)


def test_strong_typing_is_asked_for_where_it_must_be() -> None:
    assert Api(FAMILIES["tensorrt"], TENSORRT_10).creation_flags == 2
    assert Api(FAMILIES["tensorrt"], TENSORRT_11).creation_flags == 0
    assert Api(FAMILIES["tensorrt"], library("11.4")).creation_flags == 0


def test_only_rtx_names_capabilities_and_captures_graphs() -> None:
    for module in (TENSORRT_10, TENSORRT_11):
        api = Api(FAMILIES["tensorrt"], module)
        assert api.capabilities == ()
        assert api.runtime_config(None, cuda_graphs=True) is None


def test_the_installed_rtx() -> None:
    """Check the real library: its capabilities, and that it accepts strong typing."""
    api = import_family("tensorrt-rtx")
    assert {"7.5", "8.9", "12.0"} <= set(api.capabilities)
    assert list(api.capabilities) == sorted(api.capabilities, key=version_tuple)
    builder = api.trt.Builder(logger_of(api))
    assert builder.create_network(api.creation_flags) is not None
    config = builder.create_builder_config()
    for attribute in ("progress_monitor", "builder_optimization_level", "profiling_verbosity"):
        assert hasattr(config, attribute)
    assert logger_of(api) is logger_of(import_family("tensorrt-rtx"))


def test_rtx_graphs_are_its_own() -> None:
    wanted = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    api = Api(FAMILIES["tensorrt-rtx"], library("1.7", CudaGraphStrategy=wanted))
    config = SimpleNamespace(cuda_graph_strategy=None)
    engine = SimpleNamespace(create_runtime_config=lambda: config)
    assert api.runtime_config(engine, cuda_graphs=True) is config
    assert config.cuda_graph_strategy == "whole"
    assert api.runtime_config(engine, cuda_graphs=False) is None


def test_an_old_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", library("10.3.0"))
    with pytest.raises(BackendError, match=r"10.3.0 is too old, 10.13 .*pip install -U"):
        import_family("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", library("10.13.0"))
    assert import_family("tensorrt").version == "10.13.0"


@given(st.lists(NUMBERS, min_size=1, max_size=4))
def test_versions(numbers: list[int]) -> None:
    spelled = ".".join(map(str, numbers))
    assert version_tuple(spelled) == tuple(numbers)
    assert version_tuple(f"{spelled}.post1") == tuple(numbers)


def target(engine: EngineFamily = "tensorrt", **changes: Any) -> Target:
    fields = {
        "version": "10.13.3.9",
        "system": "linux-x86_64",
        "compute_capabilities": ("8.6",),
        "source": "0" * 64,
        "precision_seen_in": "engine",
        "gpu": "NVIDIA A10",
    }
    return Target(engine, 18, 1, EngineBuild(**{**fields, **changes}))


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS))
def test_an_engine_runs_on_its_own_version(version: tuple[int, int, int]) -> None:
    spelled = ".".join(map(str, version))
    check_library(target(version=spelled), spelled, "linux-x86_64", "b")
    for other in (f"{version[0] + 1}.0.0", f"{version[0]}.{version[1]}.{version[2] + 1}"):
        with pytest.raises(BackendError, match="is installed"):
            check_library(target(version=spelled), other, "linux-x86_64", "b")


@pytest.mark.parametrize(
    ("version", "runs"),
    [
        *(("10.13.3.9", True), ("10.14.0.0", True), ("11.4.0.1", True)),
        *(("10.13.3.8", False), ("9.9.0.0", False), ("12.0.0.0", False)),
    ],
)
def test_a_version_compatible_engine_runs_on_later_ones(version: str, runs: bool) -> None:
    compatible = target(version_compatible=True)
    if runs:
        check_library(compatible, version, "linux-x86_64", "b")
        return
    with pytest.raises(BackendError, match=r"10.13.3.9 or later, below 12.0"):
        check_library(compatible, version, "linux-x86_64", "b")


@pytest.mark.parametrize(
    ("capability", "level", "runs"),
    [
        ("8.6", "none", True),
        ("8.9", "none", False),
        ("8.9", "same_compute_capability", False),
        ("8.9", "ampere_plus", True),
        ("12.0", "ampere_plus", True),
        ("7.5", "ampere_plus", False),
    ],
)
def test_gpus(capability: str, level: str, runs: bool) -> None:
    built = target(hardware_compatibility=level)
    gpu = Gpu("NVIDIA Other", capability, 1)
    if runs:
        check_gpu(built, gpu, "b")
        return
    with pytest.raises(BackendError, match=f"8.6, cuda:1 is NVIDIA Other with {capability}"):
        check_gpu(built, gpu, "b")


def test_systems() -> None:
    assert system_name().count("-") == 1
    with pytest.raises(BackendError, match=r"built on linux-x86_64, this is linux-aarch64"):
        check_library(target(), "10.13.3.9", "linux-aarch64", "b")
