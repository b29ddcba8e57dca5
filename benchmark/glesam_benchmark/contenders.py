"""Choose the contenders: engines that run the bundle, and what a user would run instead."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import msgspec

from glesam_export.weight_options import WeightOptions
from glesam_runtime.backends import BACKENDS, ENGINE_BACKEND, installed
from glesam_runtime.backends.loading import is_compiled
from glesam_runtime.bundle import Bundle
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import InputError
from glesam_runtime.machine import multiplies_bfloat16


class BundleRunner(msgspec.Struct, frozen=True, tag="ours"):
    """Run a bundle on an engine of the runtime."""

    choice: RequestedEngine
    bundle: str
    """Path of the bundle's folder."""


class PytorchRunner(msgspec.Struct, frozen=True, tag="pytorch"):
    """Run the reference model in PyTorch."""

    weights: WeightOptions
    autocast: bool = False
    """Compute matrix products in bfloat16."""
    compiled: bool = False
    merged: bool = False
    """Add the adapters to the weights first; otherwise they are computed separately."""
    threads: int | None = None


class PlainRunner(msgspec.Struct, frozen=True, tag="plain"):
    """Run a `torch.onnx.export` of the reference's modules on an engine."""

    folder: str
    """Path of the folder with the exported graphs."""
    engine: Literal["onnxruntime", "openvino"]
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int | None = None


Peer = PytorchRunner | PlainRunner
Runner = BundleRunner | Peer

VARIANT_OF = "@"
"""Separates engine and bundle in the name of a variant: `auto@int8`."""


class Contender(msgspec.Struct, frozen=True):
    """One way to run the model, and its row in the table."""

    name: str
    """The name used on the command line."""
    title: str
    runner: Runner

    @property
    def is_bundle(self) -> bool:
        """Return whether this contender runs a bundle."""
        return isinstance(self.runner, BundleRunner)


def bundle_contenders(
    bundle: Bundle, asked: Sequence[str], common: RequestedEngine
) -> list[Contender]:
    """Return a contender for each requested engine.

    Args:
        bundle: the bundle to run.
        asked: "NAME" or "NAME:PRECISION"; empty means every installed engine that runs the bundle.
        common: the other options; its `precision` applies to engines that name none.

    Raises:
        InputError: an engine is unknown or named twice.
    """
    known = ("auto", *BACKENDS)
    default = [ENGINE_BACKEND] if is_compiled(bundle) else installed() or ["auto"]
    found: list[Contender] = []
    for spec in asked or default:
        backend, _, precision = spec.partition(":")
        if backend not in known:
            raise InputError(f"--backend {spec}: must be one of {', '.join(known)}")
        if spec in [contender.name for contender in found]:
            raise InputError(f"--backend {spec}: given twice")
        choice = replace(common, backend=backend, precision=precision or common.precision)
        title = f"glesam-deploy, {spec.replace(':', ' ')}"
        found.append(Contender(spec, title, BundleRunner(choice, str(bundle.path))))
    return found


def variant_contenders(
    bundle: Bundle, others: Sequence[Bundle], common: RequestedEngine
) -> list[Contender]:
    """Return a contender for each variant of the bundle, on the engine that suits it.

    Args:
        bundle: the bundle under test.
        others: bundles of the same model in another precision, or quantized.
        common: the engine options; the backend is chosen automatically.

    Raises:
        InputError: a variant holds another model.
    """
    model = bundle.manifest.model
    for other in others:
        if other.manifest.model != model:
            raise InputError(
                f"--variant {other.path}: holds another model than {bundle.path} "
                f"({model.preset} with {model.unet}, gamma {model.gamma:g}, timestep "
                f"{model.timestep})"
            )
    return [
        Contender(
            f"auto{VARIANT_OF}{other.path.name}",
            f"glesam-deploy, {other.path.name}",
            BundleRunner(replace(common, backend="auto"), str(other.path)),
        )
        for other in others
    ]


Make = Callable[[WeightOptions, str, int | None], Peer]


def _torch(**how: bool) -> Make:
    return lambda weights, folder, threads: PytorchRunner(weights, threads=threads, **how)


def _plain(engine: Literal["onnxruntime", "openvino"], precision: Literal["fp32", "bf16"]) -> Make:
    return lambda weights, folder, threads: PlainRunner(folder, engine, precision, threads)


PEERS: Mapping[str, tuple[str, Make]] = MappingProxyType(
    {
        "pytorch": ("PyTorch eager fp32", _torch()),
        "pytorch-merged": ("PyTorch eager fp32, LoRA merged", _torch(merged=True)),
        "pytorch-bf16": ("PyTorch bf16 autocast", _torch(autocast=True)),
        "torch-compile": ("torch.compile fp32", _torch(compiled=True)),
        "plain-onnxruntime": ("plain export, onnxruntime fp32", _plain("onnxruntime", "fp32")),
        "plain-openvino-bf16": ("plain export, openvino bf16", _plain("openvino", "bf16")),
        "plain-openvino-fp32": ("plain export, openvino fp32", _plain("openvino", "fp32")),
    }
)
"""Title and constructor of each peer, by the name that `--peer` takes."""


def peer_contenders(
    asked: Sequence[str], weights: WeightOptions, folder: str, threads: int | None
) -> tuple[list[Contender], list[str]]:
    """Return the requested peers.

    Args:
        asked: names from `PEERS`; empty means every peer that can run here.
        weights: the peers' weights, completed by the bundle.
        folder: where the plain export is.
        threads: CPU threads; None leaves the number to each engine.

    Returns:
        The contenders, and one line for each peer that was left out.

    Raises:
        InputError: a name is unknown, or a peer asked for by name cannot run here.
    """
    found: list[Contender] = []
    left_out: list[str] = []
    for name in asked or PEERS:
        if name not in PEERS:
            raise InputError(f"--peer {name}: must be one of {', '.join(PEERS)}")
        title, make = PEERS[name]
        runner = make(weights, folder, threads)
        lacking = _lacking(runner)
        if lacking and asked:
            raise InputError(f"--peer {name}: {lacking}")
        if lacking:
            left_out.append(f"{title}: left out, {lacking}")
        else:
            found.append(Contender(name, title, runner))
    return found, left_out


def _lacking(runner: Peer) -> str:
    """Return what a peer needs and this machine lacks; empty if nothing is missing."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed; run pip install 'glesam-deploy[export]'"
    if isinstance(runner, PytorchRunner) and runner.compiled and not _has_cpp_compiler():
        return "torch.compile needs a C++ compiler: install g++ or clang++, or set CXX"
    if isinstance(runner, PlainRunner) and importlib.util.find_spec(runner.engine) is None:
        return f"{runner.engine} is not installed; run pip install {runner.engine}"
    in_bfloat16 = (
        runner.autocast if isinstance(runner, PytorchRunner) else runner.precision == "bf16"
    )
    if in_bfloat16 and not multiplies_bfloat16():
        return "this CPU has no bfloat16 arithmetic"
    return ""


def _has_cpp_compiler() -> bool:
    asked = os.environ.get("CXX")
    return any(shutil.which(name) for name in ([asked] if asked else ["g++", "clang++", "c++"]))
