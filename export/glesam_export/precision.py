"""Which values stay float32 when a graph is typed float16 or bfloat16.

Precision is in the graph or nowhere: TensorRT 11 is strongly typed. The modules are cast before
they are traced, so that one typed ONNX file serves every engine. An island is a module that keeps
float32 weights and computes in float32; the cast stands on either side of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

from glesam_export.graphs.attention import Weights
from glesam_export.graphs.base import Graph
from glesam_export.graphs.decoder import PointEmbedding
from glesam_runtime.manifest import PrecisionName, StageName

DTYPES: Mapping[PrecisionName, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
)
"""What export can type; int8 and fp8 come from calibration."""


@dataclass(frozen=True)
class Island:
    """A class of modules that stays float32, and why.

    Attributes:
        name: what the manifest records.
        kinds: module classes.
        reason: what goes wrong otherwise.
        precisions: those it goes wrong in.
    """

    name: str
    kinds: tuple[type[nn.Module], ...]
    reason: str
    precisions: tuple[PrecisionName, ...] = ("fp16", "bf16")


LAYER_NORM = Island(
    "LayerNorm",
    (nn.LayerNorm, LayerNorm2d),
    "squares of SAM's outlier channels pass 65504 and the mean of squares overflows",
)
GROUP_NORM = Island(
    "GroupNorm", (nn.GroupNorm,), "variances are taken over up to 10 channels x 4096 pixels"
)
SOFTMAX = Island(
    "Softmax", (nn.Softmax,), "sums of 4096 exponentials lose the small ones in half precision"
)
POINTS = Island(
    "PointEmbedding", (PointEmbedding,), "coordinates to 1024 have steps of 0.5 in float16"
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
    "Stable Diffusion 2's products of queries and keys pass 65504; diffusers upcasts them too",
    ("fp16",),
)

ISLANDS: Mapping[StageName, tuple[Island, ...]] = MappingProxyType(
    {
        "encoder": (LAYER_NORM, SOFTMAX),
        "enhancer": (LAYER_NORM, GROUP_NORM, SOFTMAX),
        "decoder": (LAYER_NORM, SOFTMAX, POINTS, UPSCALING),
    }
)

"""What every preset's graphs have."""

PRESET_ISLANDS: Mapping[tuple[str, StageName], tuple[Island, ...]] = MappingProxyType(
    {("sd21", "enhancer"): (SCORES,)}
)
"""What a SAM or U-Net preset needs beside them."""


class Float32(nn.Module):
    """Runs a module in float32 inside a graph of another dtype.

    Args:
        module: its parameters are float32 and stay so.
        dtype: what the output is cast to.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor:
        """The module's output on float32 inputs, cast back."""
        upcast = {name: value.float() for name, value in named.items()}
        result: Tensor = self.module(*(value.float() for value in inputs), **upcast)
        return result.to(self.dtype)


def islands(
    stage: StageName,
    precision: PrecisionName,
    presets: Collection[str] = (),
    further: Sequence[str] = (),
) -> tuple[str, ...]:
    """Names of the islands that a graph of this precision has, for the manifest.

    Args:
        stage: which.
        precision: fp32 has none.
        presets: names of the SAM and of the U-Net.
        further: modules that are islands too.
    """
    if precision == "fp32":
        return ()
    last_add = ("GLE's last add",) if stage == "enhancer" else ()
    named = (island.name for island in _islands(stage, precision, presets))
    return (*named, *last_add, *further)


def island_kinds(
    stage: StageName, precision: PrecisionName, presets: Collection[str] = ()
) -> tuple[type[nn.Module], ...]:
    """The module classes that stay float32 in a stage."""
    return tuple(kind for island in _islands(stage, precision, presets) for kind in island.kinds)


def apply(
    graph: Graph,
    stage: StageName,
    precision: PrecisionName,
    presets: Collection[str] = (),
    further: Sequence[str] = (),
) -> None:
    """Type a graph, in place: half precision everywhere but in its islands.

    Args:
        graph: one of the three graphs, in float32.
        stage: which it is.
        precision: fp32 leaves the graph as it is.
        presets: names of the SAM and of the U-Net, which may have islands of their own.
        further: names of modules that are islands too.
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
    """Type a module and what is in it, in place, islands left in float32.

    Args:
        module: in float32; no island itself.
        kinds: classes of islands.
        dtype: half precision.
        further: names of submodules that are islands too.
    """
    parts: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in parts)
        if name and not inside and (name in further or isinstance(part, kinds)):
            parts[name] = part
    for name in parts:  # out of the way: rounded once, a weight stays rounded
        module.set_submodule(name, nn.Identity())
    module.to(dtype)
    for name, part in parts.items():
        module.set_submodule(name, Float32(part, dtype))


def _islands(
    stage: StageName, precision: PrecisionName, presets: Collection[str]
) -> tuple[Island, ...]:
    own = (island for preset in presets for island in PRESET_ISLANDS.get((preset, stage), ()))
    return tuple(each for each in (*ISLANDS[stage], *own) if precision in each.precisions)
