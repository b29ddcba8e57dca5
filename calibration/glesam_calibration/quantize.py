"""From a float bundle and statistics to quantized graphs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir
from msgspec.structs import replace
from onnx_ir.passes.common import DeduplicateHashedInitializersPass

from glesam_calibration import qdq, smooth
from glesam_calibration.graph_files import save_graph
from glesam_calibration.layers import Layer, find_layers, is_quantized
from glesam_calibration.observe import Observed
from glesam_calibration.ranges import DEFAULT, PERCENTILE, Method, kept_range
from glesam_runtime.bundle import Bundle, file_ref, require_own_weights
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.manifest import STAGES, Stage, StageName

_ISLANDS = ("biases", "normalisations", "softmax", "products of activations")

PAST_THE_BLOCKS: Mapping[StageName, str] = {"enhancer": r"conv_in|conv_out|.*\.shortcut"}
"""Layers by which a latent gets past the U-Net's blocks to its answer. Nothing behind them averages
out what is rounded there, and they are 4 % of SD 2.1's work (ADR 14)."""


@dataclass(frozen=True)
class Recipe:
    """How to quantize."""

    kind: qdq.EightBit = "int8"
    method: Method | None = None
    """How ranges are found; None is what suits the kind."""
    percentile: float = PERCENTILE
    smoothing: float | None = None
    """SmoothQuant's alpha; None is without."""
    weights_only: tuple[StageName, ...] = ("decoder",)
    """Stages whose weights are stored in eight bits while they compute in float32."""
    float_layers: Mapping[StageName, Collection[str]] = field(default_factory=dict)
    """Names of layers to keep in float32, by stage."""
    float_inputs: Mapping[StageName, str] = field(default_factory=lambda: PAST_THE_BLOCKS)
    """Pattern of the layers, by stage, of which the weights alone are stored in eight bits."""

    def __post_init__(self) -> None:
        if (self.kind, self.method) == ("fp8", "mse"):
            raise InputError("method mse: its steps are those of integers; leave it out for fp8")

    @property
    def ranges_by(self) -> Method:
        """The method, or the kind's."""
        return self.method or DEFAULT[self.kind]


def require_float(bundle: Bundle) -> None:
    """Refuse a bundle that ranges cannot be taken from.

    Raises:
        BundleError: it is quantized already, its graphs are typed in half precision, or its
            weights are hard links.
    """
    precisions = {name: bundle.manifest.stages[name].precision for name in STAGES}
    for stage, precision in precisions.items():
        if precision in ("int8", "fp8") or is_quantized(ir.load(bundle.graph_path(stage)).graph):
            raise BundleError(
                f"{bundle.path}: its {stage} is quantized already; give the float32 bundle it was "
                "made of"
            )
        if precision != "fp32":
            raise BundleError(
                f"{bundle.path}: its {stage} is {precision}; quantize the fp32 bundle instead"
            )
    require_own_weights(bundle)


def quantized(
    path: Path, stage: StageName, seen: Observed, recipe: Recipe
) -> tuple[ir.Model, tuple[str, ...]]:
    """A stage's graph, quantized, and what of it stays float32.

    Args:
        path: the float graph.
        stage: which.
        seen: statistics of what flows into its layers.
        recipe: how.

    Raises:
        BundleError: the recipe keeps a layer that the graph has not.
    """
    keep = recipe.float_layers.get(stage, ())
    model = ir.load(path)
    layers = find_layers(model.graph)
    chosen = [layer for layer in layers if layer.name not in keep]
    unknown = set(keep) - {layer.name for layer in layers}
    if unknown:
        raise BundleError(f"{path}: has no layer {sorted(unknown)[0]!r}")
    if stage in recipe.weights_only:
        qdq.insert(model, chosen, None, recipe.kind)
        return model, (*_ISLANDS, "activations")
    spared = re.compile(recipe.float_inputs.get(stage, "(?!)"))
    past = [layer for layer in chosen if spared.fullmatch(layer.name)]
    inner = [layer for layer in chosen if layer not in past]
    ranges = ranges_of(inner, seen, recipe)
    if recipe.smoothing is not None:
        sites = smooth.find_sites(model.graph, layers)
        ranges |= smooth.migrate(model.graph, sites, seen, recipe.smoothing)
    qdq.insert(model, past, None, recipe.kind)
    qdq.insert(model, inner, ranges, recipe.kind)
    return model, (*_ISLANDS, *(f"input of {layer.name}" for layer in past))


def ranges_of(layers: Collection[Layer], seen: Observed, recipe: Recipe) -> dict[str, float]:
    """The largest magnitude kept of each tensor that flows into one of the layers."""
    names = dict.fromkeys(layer.activation for layer in layers)
    return {name: kept_range(seen[name], recipe.ranges_by, recipe.percentile) for name in names}


def write_stages(
    bundle: Bundle, seen: Mapping[StageName, Observed], recipe: Recipe, folder: Path
) -> dict[StageName, Stage]:
    """Write the quantized graphs into a folder and describe them for the manifest."""
    return {stage: write_stage(bundle, stage, seen[stage], recipe, folder) for stage in STAGES}


def write_stage(
    bundle: Bundle, stage: StageName, seen: Observed, recipe: Recipe, folder: Path
) -> Stage:
    """Write one quantized graph into a folder and describe it for the manifest."""
    model, islands = quantized(bundle.graph_path(stage), stage, seen, recipe)
    # Beside eight-bit weights even small constants show, and exporters write some of them often.
    DeduplicateHashedInitializersPass()(model)
    holds_q = is_quantized(model.graph)
    path = folder / f"{stage}.onnx"
    data = save_graph(model, path)
    islands += ("GLE's last add",) if stage == "enhancer" else ()
    return replace(
        bundle.manifest.stages[stage],
        graph=file_ref(path),
        data=file_ref(data) if data else None,
        precision=recipe.kind if holds_q else "fp32",
        islands=islands if holds_q else (),
    )
