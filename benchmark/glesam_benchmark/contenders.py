"""Who is measured: engines that a bundle runs on, and what a user would run instead."""

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
from glesam_runtime.backends import BACKENDS, ENGINE_BACKEND, installed, is_compiled
from glesam_runtime.bundle import Bundle
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import InputError
from glesam_runtime.machine import multiplies_bfloat16


class Ours(msgspec.Struct, frozen=True, tag="ours"):
    """A bundle on an engine of the runtime."""

    choice: RequestedEngine
    bundle: str
    """Its folder."""


class Pytorch(msgspec.Struct, frozen=True, tag="pytorch"):
    """The reference in PyTorch."""

    weights: WeightOptions
    autocast: bool = False
    """Matrix products in bfloat16."""
    compiled: bool = False
    merged: bool = False
    """Adapters added to the weights beforehand; the reference computes them apart."""
    threads: int | None = None


class Plain(msgspec.Struct, frozen=True, tag="plain"):
    """`torch.onnx.export` of the reference's modules, on an engine."""

    folder: str
    """Of the exported graphs."""
    engine: Literal["onnxruntime", "openvino"]
    precision: Literal["fp32", "bf16"] = "fp32"
    threads: int | None = None


Peer = Pytorch | Plain
Runner = Ours | Peer

OF = "@"
"""Between an engine's name and the bundle's, of bundles beside the one that is measured."""


class Contender(msgspec.Struct, frozen=True):
    """One line of the table."""

    name: str
    """As asked for on the command line."""
    title: str
    runner: Runner

    @property
    def is_ours(self) -> bool:
        """Whether a bundle runs."""
        return isinstance(self.runner, Ours)


def ours(bundle: Bundle, asked: Sequence[str], common: RequestedEngine) -> list[Contender]:
    """The engines asked for.

    Args:
        bundle: what they are to run.
        asked: "NAME" or "NAME:PRECISION"; empty is every engine here that runs such bundles.
        common: further options; `precision` is for those that name none.

    Raises:
        InputError: an unknown engine, or one asked for twice.
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
        found.append(Contender(spec, title, Ours(choice, str(bundle.path))))
    return found


def variants(bundle: Bundle, others: Sequence[Bundle], common: RequestedEngine) -> list[Contender]:
    """The same model as other bundles, each on the engine that suits it.

    Args:
        bundle: what they are to be the same as.
        others: typed otherwise, or quantized.
        common: options; the backend is chosen.

    Raises:
        InputError: one of another model.
    """
    model = bundle.manifest.model
    for other in others:
        if other.manifest.model != model:
            raise InputError(
                f"--variant {other.path}: is not the model of {bundle.path} ({model.preset} with "
                f"{model.unet}, gamma {model.gamma:g}, timestep {model.timestep})"
            )
    return [
        Contender(
            f"auto{OF}{other.path.name}",
            f"glesam-deploy, {other.path.name}",
            Ours(replace(common, backend="auto"), str(other.path)),
        )
        for other in others
    ]


Make = Callable[[WeightOptions, str, int | None], Peer]


def _torch(**how: bool) -> Make:
    return lambda weights, folder, threads: Pytorch(weights, threads=threads, **how)


def _plain(engine: Literal["onnxruntime", "openvino"], precision: Literal["fp32", "bf16"]) -> Make:
    return lambda weights, folder, threads: Plain(folder, engine, precision, threads)


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
"""Title and maker, by the name that `--peer` takes."""


def peers(
    asked: Sequence[str], weights: WeightOptions, folder: str, threads: int | None
) -> tuple[list[Contender], list[str]]:
    """What is measured beside ours.

    Args:
        asked: names of `PEERS`; empty is all that can run here.
        weights: completed by the bundle.
        folder: of the plain exports.
        threads: of the CPU.

    Returns:
        The contenders, and a line on each that was left out.

    Raises:
        InputError: an unknown name, or one asked for that cannot run here.
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
    """What a peer would need and is not here; empty where nothing is."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: pip install 'glesam-deploy[export]'"
    if isinstance(runner, Pytorch) and runner.compiled and not _has_cpp_compiler():
        return "torch.compile needs a C++ compiler: install g++ or clang++, or set CXX"
    if isinstance(runner, Plain) and importlib.util.find_spec(runner.engine) is None:
        return f"{runner.engine} is not installed: pip install {runner.engine}"
    in_bfloat16 = runner.autocast if isinstance(runner, Pytorch) else runner.precision == "bf16"
    if in_bfloat16 and not multiplies_bfloat16():
        return "this CPU has no bfloat16 arithmetic"
    return ""


def _has_cpp_compiler() -> bool:
    asked = os.environ.get("CXX")
    return any(shutil.which(name) for name in ([asked] if asked else ["g++", "clang++", "c++"]))
