"""Casts a graph to float16 or bfloat16, except for islands that stay float32.

The graph itself holds the precision, because TensorRT 11 is strongly typed. Modules are cast before
they are traced, so one typed ONNX file serves every engine. An island is a module that keeps
float32 weights and computes in float32, with a cast before and after it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from glesam_export.families.sam.decoder import PointEmbedding
from glesam_export.graphs import Graph, Weights
from glesam_runtime.manifest import PrecisionName, StageName

DTYPES: Mapping[PrecisionName, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
"""The precisions that export offers. Calibration adds int8 and fp8."""


@dataclass(frozen=True)
class Island:
    """Module classes that stay float32, and why.

    Attributes:
        name: recorded in the manifest.
        kinds: module classes.
        reason: what goes wrong in half precision.
        precisions: the precisions in which it goes wrong.
    """

    name: str
    kinds: tuple[type[nn.Module], ...]
    reason: str
    precisions: tuple[PrecisionName, ...] = ("fp16", "bf16")


LAYER_NORM = Island(
    "LayerNorm",
    (nn.LayerNorm, LayerNorm2d),
    "squares of SAM's outlier channels exceed 65504, so the mean of squares overflows",
)
GROUP_NORM = Island(
    "GroupNorm", (nn.GroupNorm,), "variances sum over up to 10 channels x 4096 pixels"
)
SOFTMAX = Island(
    "Softmax", (nn.Softmax,), "sums of 4096 exponentials lose the small ones in half precision"
)
POINTS = Island(
    "PointEmbedding", (PointEmbedding,), "coordinates up to 1024 have steps of 0.5 in float16"
)

UPSCALING = Island(
    "ConvTranspose",
    (nn.ConvTranspose2d,),
    "TensorRT-RTX 1.7 cannot compile a deconvolution in bfloat16",
    ("bf16",),
)
SCORES = Island(
    "attention scores",
    (Weights,),
    "Stable Diffusion 2's products of queries and keys exceed 65504; diffusers upcasts them too",
    ("fp16",),
)

ISLANDS: Mapping[StageName, tuple[Island, ...]] = MappingProxyType(
    {
        "encoder": (LAYER_NORM, SOFTMAX),
        "enhancer": (LAYER_NORM, GROUP_NORM, SOFTMAX),
        "decoder": (LAYER_NORM, SOFTMAX, POINTS, UPSCALING),
    }
)
"""Islands of every preset's graphs."""

PRESET_ISLANDS: Mapping[tuple[str, StageName], tuple[Island, ...]] = MappingProxyType(
    {("sd21", "enhancer"): (SCORES,)}
)
"""Additional islands that one SAM or U-Net preset needs in one stage."""


class Float32(nn.Module):
    """Runs a module in float32 inside a graph of another dtype.

    Args:
        module: the module; its parameters are float32 and stay so.
        dtype: type of the output.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """Run the module on float32 inputs and cast its output back. Integers stay as they are."""
        upcast = {name: _upcast(value) for name, value in named.items()}
        result: Tensor = self.module(*map(_upcast, inputs), **upcast)
        return result.to(self.dtype)


def islands(
    stage: StageName,
    precision: PrecisionName,
    presets: Collection[str] = (),
    further: Sequence[str] = (),
) -> tuple[str, ...]:
    """Name the islands of a graph, for the manifest.

    Args:
        stage: the graph's stage.
        precision: fp32 has no islands.
        presets: names of the SAM preset and the U-Net preset.
        further: names of more modules that are islands.
    """
    if precision == "fp32":
        return ()
    last_add = ("GLE's last add",) if stage == "enhancer" else ()
    named = (island.name for island in _islands(stage, precision, presets))
    return (*named, *last_add, *further)


def island_kinds(
    stage: StageName, precision: PrecisionName, presets: Collection[str] = ()
) -> tuple[type[nn.Module], ...]:
    """Return the module classes that stay float32 in a stage."""
    return tuple(kind for island in _islands(stage, precision, presets) for kind in island.kinds)


def cast_graph(
    graph: Graph,
    stage: StageName,
    precision: PrecisionName,
    presets: Collection[str] = (),
    further: Sequence[str] = (),
) -> None:
    """Cast a graph to half precision, in place, except for its islands.

    Args:
        graph: a graph in float32.
        stage: the graph's stage.
        precision: fp32 changes nothing.
        presets: names of the SAM preset and the U-Net preset, which may have islands of their own.
        further: names of more modules that are islands.
    """
    if precision == "fp32":
        return
    type_module(graph, island_kinds(stage, precision, presets), DTYPES[precision], further)
    graph.dtype = DTYPES[precision]


def type_module(
    module: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    dtype: torch.dtype,
    further: Sequence[str] = (),
) -> None:
    """Cast a module to half precision, in place, except for the islands inside it.

    Args:
        module: in float32; not an island itself.
        kinds: classes of islands.
        dtype: the half-precision type.
        further: names of more submodules that are islands.
    """
    parts: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in parts)
        if name and not inside and (name in further or isinstance(part, kinds)):
            parts[name] = part
    for name in parts:  # removed before the cast, because rounding cannot be undone
        module.set_submodule(name, nn.Identity())
    module.to(dtype)
    for name, part in parts.items():
        module.set_submodule(name, Float32(part, dtype))


def _upcast(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _islands(
    stage: StageName, precision: PrecisionName, presets: Collection[str]
) -> tuple[Island, ...]:
    own = (island for preset in presets for island in PRESET_ISLANDS.get((preset, stage), ()))
    return tuple(each for each in (*ISLANDS[stage], *own) if precision in each.precisions)
