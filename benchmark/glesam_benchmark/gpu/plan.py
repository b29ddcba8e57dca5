"""Say what is measured on a GPU, in which order, and for how long at most.

A part is one process. Parts that measure use the GPU and run one at a time. Parts that prepare
(export, count, calibrate) use the CPU and run beside them. Each lane takes its first part whose
needs are done, so the order below is the order of worth: what a run loses when its time is over is
what stands last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from glesam_runtime.manifest import PrecisionName, StageName

Lane = Literal["cpu", "gpu"]
Device = Literal["cpu", "cuda"]


class MeasureDevice(msgspec.Struct, frozen=True, tag="device"):
    """Measure matrix and copy rates, and try to import TensorRT and TensorRT-RTX."""

    side: int
    """Side of the square matrices."""


class CountOperations(msgspec.Struct, frozen=True, tag="operations"):
    """Count the operations of models, named by SAM preset."""

    presets: tuple[str, ...]


class WriteGolden(msgspec.Struct, frozen=True, tag="golden"):
    """Write the golden file of a preset's random weights."""

    preset: str


class ExportStages(msgspec.Struct, frozen=True, tag="export"):
    """Export graphs with random weights and a dynamic batch, without verification."""

    preset: str
    precision: PrecisionName
    stages: tuple[StageName, ...]


class Quantize(msgspec.Struct, frozen=True, tag="quantize"):
    """Make an int8 bundle of a preset's float32 bundle."""

    preset: str
    samples: int


class RunOnnx(msgspec.Struct, frozen=True, tag="onnx"):
    """Check and time a bundle on ONNX Runtime."""

    preset: str
    precision: PrecisionName
    batches: tuple[int, ...]
    attention_nodes: bool = False
    """Each attention as one node, as `glesam-export onnx --attention-nodes` writes it."""
    nhwc: bool = False
    """Convolutions in NHWC: the CUDA provider's option `prefer_nhwc`."""

    @property
    def form(self) -> str:
        """Return what differs from the bundle as exported by default, for the name of a row."""
        return ", attention nodes" * self.attention_nodes + ", NHWC" * self.nhwc


class RunTorch(msgspec.Struct, frozen=True, tag="torch"):
    """Time the reference, or the folded modules, in PyTorch."""

    preset: str
    precision: PrecisionName
    batches: tuple[int, ...]
    folded: bool = False
    """Our folded modules instead of the reference."""
    merged: bool = True
    """Whether the reference's adapters are added to the weights first."""
    compiled: bool = False
    """torch.compile with max-autotune and CUDA graphs."""


Task: TypeAlias = (
    MeasureDevice | CountOperations | WriteGolden | ExportStages | Quantize | RunOnnx | RunTorch
)


@dataclass(frozen=True)
class Part:
    """One process of the run.

    Attributes:
        name: unique.
        lane: what it uses.
        limit: seconds after which it is killed.
        task: what it does.
        needs: names of parts that must be done before.
    """

    name: str
    lane: Lane
    limit: float
    task: Task
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """All parts in the order of worth, and how they measure.

    Attributes:
        parts: the parts.
        device: where graphs and modules run.
        repeats: timed calls of each step, after warm-up.
        seconds: time for everything.
        preparing: parts of the CPU lane that run at the same time. The GPU lane runs one.
        threads: CPU threads of a part.
    """

    parts: tuple[Part, ...]
    device: Device
    repeats: int
    seconds: float
    preparing: int
    threads: int


_DRY_LIMIT = 300
"""Seconds of a part of a dry run: enough for a busy machine."""


def full_plan(seconds: float) -> Plan:
    """Return the plan for a data-centre GPU."""
    b = "sam_vit_b"
    others = ("sam2.1_hiera_t", "sam_vit_l", "sam_vit_h", "sam2.1_hiera_l")
    small, large = (1, 4, 16), (1, 4)
    measuring = [
        Part("device", "gpu", 40, MeasureDevice(8192)),
        _torch("eager fp16", 60, RunTorch(b, "fp16", small)),
        _torch("eager bf16", 50, RunTorch(b, "bf16", small)),
        _onnx(b, "fp16", small, 110),
        _onnx(b, "fp16", small, 110, attention_nodes=True),
        _torch("compile bf16", 150, RunTorch(b, "bf16", large, compiled=True)),
        *(_onnx("nano", half, small, 40) for half in ("fp32", "fp16", "bf16")),
        _onnx(b, "bf16", small, 90, attention_nodes=True),
        _onnx(b, "fp16", large, 90, attention_nodes=True, nhwc=True),
        _onnx(b, "bf16", small, 90),
        _torch("folded compile bf16", 150, RunTorch(b, "bf16", large, folded=True, compiled=True)),
        Part(
            "nano int8 onnxruntime",
            "gpu",
            40,
            RunOnnx("nano", "int8", (1,)),
            ("nano int8 calibration",),
        ),
        _torch("nano compile bf16", 90, RunTorch("nano", "bf16", small, compiled=True)),
        _torch("nano eager fp16", 40, RunTorch("nano", "fp16", small)),
        _onnx("sam2.1_hiera_t", "fp16", small, 60),
        _onnx("sam2.1_hiera_t", "fp16", small, 60, attention_nodes=True),
        _onnx("nano", "fp16", small, 40, attention_nodes=True),
        _onnx(b, "fp32", small, 80),
        _torch("folded eager bf16", 50, RunTorch(b, "bf16", large, folded=True)),
        _torch("eager bf16, LoRA unmerged", 50, RunTorch(b, "bf16", large, merged=False)),
        *(_onnx(preset, "fp16", large, 80, attention_nodes=True) for preset in others[1:]),
        *(_onnx(preset, "fp16", large, 80) for preset in others[1:]),
        _torch("compile fp16", 150, RunTorch(b, "fp16", large, compiled=True)),
        _torch("folded compile fp16", 150, RunTorch(b, "fp16", large, folded=True, compiled=True)),
        _torch(
            "compile bf16, LoRA unmerged",
            150,
            RunTorch(b, "bf16", (1,), merged=False, compiled=True),
        ),
        *(_onnx(preset, "bf16", large, 80) for preset in others),
        Part(
            f"{b} int8 onnxruntime",
            "gpu",
            60,
            RunOnnx(b, "int8", (1,)),
            (f"{b} int8 calibration",),
        ),
    ]
    preparing = [
        *_exports(b, "fp16", 150),
        _golden(b),
        *(part for half in ("fp32", "fp16", "bf16") for part in _exports("nano", half, 60)),
        _golden("nano"),
        *_exports(b, "bf16", 150),
        Part(
            "nano int8 calibration", "cpu", 120, Quantize("nano", 16), _bundle_needs("nano", "fp32")
        ),
        Part("operations", "cpu", 90, CountOperations(("nano", b, *others))),
        *_exports("sam2.1_hiera_t", "fp16", 150),
        _golden("sam2.1_hiera_t"),
        *_exports(b, "fp32", 150),
        *(part for preset in others[1:] for part in (*_exports(preset, "fp16", 150),)),
        *(_golden(preset) for preset in others[1:]),
        *(part for preset in others for part in _exports(preset, "bf16", 150)),
        Part(f"{b} int8 calibration", "cpu", 240, Quantize(b, 1), _bundle_needs(b, "fp32")),
    ]
    return Plan(_once([*measuring, *preparing]), "cuda", 20, seconds, preparing=3, threads=4)


def dry_plan(seconds: float) -> Plan:
    """Return a plan with the same kinds of parts for a CPU: nano alone, and few repeats."""
    parts = [
        Part("device", "gpu", _DRY_LIMIT, MeasureDevice(256)),
        _torch("nano eager fp32", _DRY_LIMIT, RunTorch("nano", "fp32", (1,), merged=False)),
        _onnx("nano", "fp32", (1, 2), _DRY_LIMIT),
        _torch(
            "nano folded compile bf16", _DRY_LIMIT, RunTorch("nano", "bf16", (1,), True, True, True)
        ),
        _onnx("nano2", "fp16", (1,), _DRY_LIMIT),
        _onnx("nano2", "fp16", (1,), _DRY_LIMIT, attention_nodes=True),
        Part(
            "nano int8 onnxruntime",
            "gpu",
            _DRY_LIMIT,
            RunOnnx("nano", "int8", (1,)),
            ("nano int8 calibration",),
        ),
        *_exports("nano", "fp32", _DRY_LIMIT),
        _golden("nano"),
        Part("operations", "cpu", _DRY_LIMIT, CountOperations(("nano", "nano2"))),
        Part(
            "nano int8 calibration",
            "cpu",
            _DRY_LIMIT,
            Quantize("nano", 2),
            _bundle_needs("nano", "fp32"),
        ),
        *_exports("nano2", "fp16", _DRY_LIMIT),
        _golden("nano2"),
    ]
    return Plan(_once(parts), "cpu", 2, seconds, preparing=1, threads=1)


def unet_of(preset: str) -> str:
    """Return the name of the U-Net that a preset is measured with."""
    from glesam_export.presets import sam_preset

    return sam_preset(preset).default_unet


def _enhancer(preset: str, precision: PrecisionName) -> str:
    return f"{unet_of(preset)} {precision} enhancer"


def _bundle_needs(preset: str, precision: PrecisionName) -> tuple[str, ...]:
    return f"{preset} {precision} graphs", _enhancer(preset, precision), f"{preset} golden"


def _onnx(
    preset: str,
    precision: PrecisionName,
    batches: tuple[int, ...],
    limit: float,
    *,
    attention_nodes: bool = False,
    nhwc: bool = False,
) -> Part:
    task = RunOnnx(preset, precision, batches, attention_nodes, nhwc)
    needs = _bundle_needs(preset, precision)
    return Part(f"{preset} {precision} onnxruntime{task.form}", "gpu", limit, task, needs)


def _torch(name: str, limit: float, task: RunTorch) -> Part:
    return Part(f"PyTorch {name}", "gpu", limit, task)


def _exports(preset: str, precision: PrecisionName, limit: float) -> list[Part]:
    """Return the exports of a bundle; bundles with the same U-Net share its graph."""
    shared = _enhancer(preset, precision)
    rest: tuple[StageName, ...] = ("encoder", "decoder")
    return [
        Part(shared, "cpu", limit, ExportStages(preset, precision, ("enhancer",))),
        Part(f"{preset} {precision} graphs", "cpu", limit, ExportStages(preset, precision, rest)),
    ]


def _golden(preset: str) -> Part:
    return Part(f"{preset} golden", "cpu", 90, WriteGolden(preset))


def _once(parts: list[Part]) -> tuple[Part, ...]:
    """Keep the first part of each name."""
    return tuple({part.name: part for part in reversed(parts)}[name] for name in _names(parts))


def _names(parts: list[Part]) -> list[str]:
    return list(dict.fromkeys(part.name for part in parts))
