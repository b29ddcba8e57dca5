"""Which values stay float32 when a graph is typed float16 or bfloat16.

Precision is in the graph or nowhere: TensorRT 11 is strongly typed. The modules are cast before
they are traced, so that one typed ONNX file serves every engine. An island is a module that keeps
float32 weights and computes in float32; the cast stands on either side of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn

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
    """

    name: str
    kinds: tuple[type[nn.Module], ...]
    reason: str


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

ISLANDS: Mapping[StageName, tuple[Island, ...]] = MappingProxyType(
    {
        "encoder": (LAYER_NORM, SOFTMAX),
        "enhancer": (LAYER_NORM, GROUP_NORM, SOFTMAX),
        "decoder": (LAYER_NORM, SOFTMAX, POINTS),
    }
)


class Float32(nn.Module):
    """Runs a module in float32 inside a graph of another dtype.

    Args:
        module: its parameters are float32 and stay so.
        dtype: what the output is cast to.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, *inputs: Tensor) -> Tensor:
        """The module's output on float32 inputs, cast back."""
        result: Tensor = self.module(*(x.float() for x in inputs))
        return result.to(self.dtype)


def islands(stage: StageName, precision: PrecisionName) -> tuple[str, ...]:
    """Names of the islands that a graph of this precision has, for the manifest."""
    if precision == "fp32":
        return ()
    last_add = ("GLE's last add",) if stage == "enhancer" else ()
    return tuple(island.name for island in ISLANDS[stage]) + last_add


def apply(graph: Graph, stage: StageName, precision: PrecisionName) -> None:
    """Type a graph, in place: half precision everywhere but in the stage's islands.

    Args:
        graph: one of the three graphs, in float32.
        stage: whose islands to keep.
        precision: fp32 leaves the graph as it is.
    """
    if precision == "fp32":
        return
    dtype = DTYPES[precision]
    kinds = tuple(kind for island in ISLANDS[stage] for kind in island.kinds)
    wrapped = [
        (name, module) for name, module in graph.named_modules() if isinstance(module, kinds)
    ]
    graph.to(dtype)
    for name, module in wrapped:
        module.float()
        graph.set_submodule(name, Float32(module, dtype))
    graph.dtype = dtype
