"""The table of backends, the options that each supports, and the check of a graph's interface."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path

import pytest

from glesam_runtime import BackendError, EngineOptions, InputError, backends, open_bundle
from glesam_runtime.backends import BACKENDS, Backend, installed
from glesam_runtime.backends.base import FoundTensor, check_interface
from glesam_runtime.backends.loading import load_engine, module_of
from glesam_runtime.engine_options import changed_options
from glesam_runtime.manifest import TensorSpec

DECLARED = (TensorSpec("a", "float32", ("B", 3)), TensorSpec("b", "float32", (1, 4)))
VALUES = {
    "precision": "fp32",
    "threads": 2,
    "streams": 2,
    "cache": Path("cache"),
    "low_memory": True,
    "cuda_graphs": True,
}
"""Every engine option with a value that is not its default."""


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_is_a_module_with_its_options(name: str) -> None:
    backend = BACKENDS[name]
    assert backend.name == name
    assert module_of(backend).__name__ == f"glesam_runtime.backends.{name}"
    assert {field.name for field in fields(EngineOptions)} >= module_of(backend).OPTIONS
    assert (
        hasattr(module_of(backend), "sees_gpu") or "cuda" not in backend.devices or backend.compiled
    )


def test_the_engine_options_are_those_listed_here() -> None:
    assert list(VALUES) == [field.name for field in fields(EngineOptions)]
    assert changed_options(EngineOptions(**VALUES)) == list(VALUES)
    assert changed_options(EngineOptions()) == []


def test_ranks_decide_between_all_backends_for_onnx_bundles() -> None:
    ranked = [backend for backend in BACKENDS.values() if not backend.compiled]
    for ranks in ([b.rank for b in ranked], [b.costs for b in ranked]):
        assert len(set(ranks)) == len(ranks)


def test_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names for ONNX bundles, in the table's order, without compiled and missing ones."""
    missing = Backend("x", ("no_such_module",), False, ("cpu",), 9)
    assert not missing.is_installed
    compiled = Backend("y", ("numpy",), True, ("cuda",), 9)
    assert compiled.is_installed
    rows = (BACKENDS["onnxruntime"], missing, compiled, BACKENDS["openvino"])
    monkeypatch.setattr(backends, "BACKENDS", {row.name: row for row in rows})
    assert installed() == ["onnxruntime", "openvino"]
    assert Backend("x", ("no_such_module", "numpy"), False, ("cpu",), 9).is_installed


@pytest.mark.parametrize("option", list(VALUES))
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_option_is_supported_or_refused(
    name: str, option: str, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = EngineOptions(**{option: VALUES[option]})
    bundle = open_bundle(toy_bundle)
    if option in module_of(BACKENDS[name]).OPTIONS:
        assert load_engine(bundle, name, options=options).name == name
        return
    spelled = option.replace("_", "-")
    with pytest.raises(BackendError, match=rf"{name} does not support --{spelled}; leave it out"):
        load_engine(bundle, name, options=options)


def test_threads_far_above_the_cores_are_refused(toy_bundle: Path) -> None:
    most = 8 * len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    most = most or 8 * (os.cpu_count() or 1)
    with pytest.raises(InputError, match=f"--threads {most + 1}: more than 8 per core"):
        load_engine(open_bundle(toy_bundle), "onnxruntime", options=EngineOptions(threads=most + 1))


def found(name: str, *shape: int | None, dtype: str = "float32") -> FoundTensor:
    return FoundTensor(name, dtype, dtype == "float32", shape)


@pytest.mark.parametrize("tensors", [[found("b", 1, 4), found("a", None, 3)]])
@pytest.mark.parametrize("exact", [True, False])
def test_the_manifests_interface(tensors: list[FoundTensor], exact: bool) -> None:
    check_interface("g", "inputs", tensors, DECLARED, exact=exact)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([found("a", None, 3)], "inputs are a, the manifest says a, b"),
        ([found("a", None, 3), found("c", 1, 4)], "inputs are a, c, the manifest says a, b"),
        ([found("a", None, 3), found("b", 1, 4), found("b", 1, 4)], "inputs are a, b, b"),
        ([found("a", 2, 3), found("b", 1, 4)], r"a is float32 \[2, 3\], the manifest says"),
        ([found("a", None, 3), found("b", 1, 5)], r"b is float32 \[1, 5\]"),
        ([found("a", None), found("b", 1, 4)], r"a is float32 \[\?\]"),
        ([found("a", None, 3), found("b", 1, 4, dtype="half")], r"b is half \[1, 4\]"),
    ],
)
def test_another_interface(tensors: list[FoundTensor], words: str) -> None:
    with pytest.raises(BackendError, match=f"g: {words}"):
        check_interface("g", "inputs", tensors, DECLARED)


def test_an_axis_left_open() -> None:
    tensors = [found("a", None, None), found("b", 1, 4)]
    check_interface("g", "outputs", tensors, DECLARED)
    with pytest.raises(BackendError, match=r"a is float32 \[\?, \?\]"):
        check_interface("g", "outputs", tensors, DECLARED, exact=True)
