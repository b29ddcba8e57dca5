"""Quantize the graphs of a float bundle, given statistics and a recipe."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir
from msgspec.structs import replace
from onnx_ir.passes.common import DeduplicateHashedInitializersPass

from glesam_calibration import attention_products, qdq, smooth
from glesam_calibration.activations import StageStatistics
from glesam_calibration.attentions import attentions
from glesam_calibration.graph_files import save_graph
from glesam_calibration.quantizable_layers import Layer, find_layers, is_quantized
from glesam_calibration.ranges import DEFAULT, PERCENTILE, Method, kept_range
from glesam_runtime.bundle import Bundle, file_ref, require_own_weights
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.manifest import STAGES, Stage, StageName

_ISLANDS = ("biases", "normalisations", "softmax")
_PRODUCTS = "products of activations"

PAST_THE_BLOCKS: Mapping[StageName, str] = {"enhancer": r"conv_in|conv_out|.*\.shortcut"}
"""Layers through which a latent bypasses the U-Net's blocks. No later layer averages their rounding
errors out, and they are 4 % of SD 2.1's multiplications (ADR 14)."""


@dataclass(frozen=True)
class Recipe:
    """A recipe of quantization: the type, how to choose ranges, and what stays in float."""

    kind: qdq.EightBit = "int8"
    method: Method | None = None
    """How ranges are chosen; None is the default of the kind."""
    percentile: float = PERCENTILE
    smoothing: float | None = None
    """Alpha of SmoothQuant; None skips smoothing."""
    weights_only: tuple[StageName, ...] = ("decoder",)
    """Stages that store their weights in eight bits and compute in float32."""
    float_layers: Mapping[StageName, Collection[str]] = field(default_factory=dict)
    """Names of layers to keep in float32, by stage."""
    float_inputs: Mapping[StageName, str] = field(default_factory=lambda: PAST_THE_BLOCKS)
    """Pattern, by stage, of the names of layers of which only the weights are stored in eight
    bits."""
    attention: bool = False
    """Whether the products of attention are quantized too, where activations are."""

    def __post_init__(self) -> None:
        if self.attention and self.kind != "fp8":
            raise InputError(
                "--attention: needs --fp8; integers turn most of softmax's weights into 0"
            )
        if self.attention and not self.attention_stages:
            raise InputError(
                "--attention: needs a stage that computes in eight bits; leave out "
                "--weights-only all"
            )
        if (self.kind, self.method) == ("fp8", "mse"):
            raise InputError("method mse: supports int8 only; leave it out for fp8")

    @property
    def attention_stages(self) -> tuple[StageName, ...]:
        """Return the stages whose attention is quantized."""
        computing = tuple(stage for stage in STAGES if stage not in self.weights_only)
        return computing if self.attention else ()

    @property
    def ranges_by(self) -> Method:
        """Return the method, or the default of the kind."""
        return self.method or DEFAULT[self.kind]


def require_float(bundle: Bundle) -> None:
    """Check that a bundle can be quantized.

    Raises:
        BundleError: the bundle is already quantized, its graphs are half precision, or its weights
            are hard links.
    """
    precisions = {name: bundle.manifest.stages[name].precision for name in STAGES}
    for stage, precision in precisions.items():
        if precision in ("int8", "fp8") or is_quantized(ir.load(bundle.graph_path(stage)).graph):
            raise BundleError(
                f"{bundle.path}: its {stage} is quantized already; give the float32 "
                f"bundle that it was "
                "made from"
            )
        if precision != "fp32":
            raise BundleError(
                f"{bundle.path}: its {stage} is {precision}; quantize the fp32 bundle instead"
            )
    require_own_weights(bundle)


def require_attention(bundle: Bundle, recipe: Recipe) -> None:
    """Check that a recipe that quantizes attention finds some.

    Raises:
        BundleError: the bundle has none that is spelled out.
    """
    graphs = [ir.load(bundle.graph_path(stage)).graph for stage in recipe.attention_stages]
    if graphs and not any(attention_products.find_operands(graph) for graph in graphs):
        raise BundleError(
            f"{bundle.path}: --attention: has no attention that is spelled out as two products; "
            "export the bundle without --attention-nodes"
        )


def quantized(
    path: Path, stage: StageName, seen: StageStatistics, recipe: Recipe
) -> tuple[ir.Model, tuple[str, ...]]:
    """Return the quantized graph of a stage, and names of the parts that stay float32.

    Args:
        path: the float graph.
        stage: the stage of the graph.
        seen: statistics of the inputs of its layers.
        recipe: how to quantize.

    Raises:
        BundleError: the recipe keeps a layer in float that the graph does not have.
    """
    keep = recipe.float_layers.get(stage, ())
    model = ir.load(path)
    layers = find_layers(model.graph)
    chosen = [layer for layer in layers if layer.name not in keep]
    unknown = set(keep) - {layer.name for layer in layers}
    if unknown:
        raise BundleError(
            f"{path}: has no layer {sorted(unknown)[0]!r}; `glesam-calibrate "
            f"sensitivity` lists them"
        )
    # Exporters write some constants many times, which is noticeable beside eight-bit weights.
    merge = DeduplicateHashedInitializersPass()
    if stage in recipe.weights_only:
        qdq.insert(model, chosen, None, recipe.kind)
        merge(model)
        return model, (*_ISLANDS, _PRODUCTS, "activations")
    spared = re.compile(recipe.float_inputs.get(stage, "(?!)"))
    past = [layer for layer in chosen if spared.fullmatch(layer.name)]
    inner = [layer for layer in chosen if layer not in past]
    ranges = ranges_of(inner, seen, recipe)
    if recipe.smoothing is not None:
        sites = smooth.find_sites(model.graph, layers)
        ranges |= smooth.migrate(model.graph, sites, seen, recipe.smoothing)
    qdq.insert(model, past, None, recipe.kind)
    qdq.insert(model, inner, ranges, recipe.kind)
    merge(model)
    products = [_PRODUCTS]
    if stage in recipe.attention_stages:
        # After the merge: which of its scales are equal depends on the ranges, and an engine can
        # only be refitted with a graph of the same names.
        names = attention_products.operand_names(model.graph)
        count = attention_products.insert(model, _kept(names, seen, recipe), recipe.kind)
        whole = len(list(attentions(model.graph)))
        products = [f"{_PRODUCTS} outside of attention"]
        products += [f"{whole - count} of {whole} attentions"] * (count < whole)
    return model, (*_ISLANDS, *products, *(f"input of {layer.name}" for layer in past))


def ranges_of(layers: Collection[Layer], seen: StageStatistics, recipe: Recipe) -> dict[str, float]:
    """Return the largest magnitude to keep of each tensor that flows into one of the layers."""
    return _kept(dict.fromkeys(layer.activation for layer in layers), seen, recipe)


def _kept(names: Iterable[str], seen: StageStatistics, recipe: Recipe) -> dict[str, float]:
    return {name: kept_range(seen[name], recipe.ranges_by, recipe.percentile) for name in names}


def write_stages(
    bundle: Bundle, seen: Mapping[StageName, StageStatistics], recipe: Recipe, folder: Path
) -> dict[StageName, Stage]:
    """Write the quantized graphs into a folder and describe them for the manifest."""
    return {stage: write_stage(bundle, stage, seen[stage], recipe, folder) for stage in STAGES}


def write_stage(
    bundle: Bundle, stage: StageName, seen: StageStatistics, recipe: Recipe, folder: Path
) -> Stage:
    """Write one quantized graph into a folder and describe it for the manifest."""
    model, islands = quantized(bundle.graph_path(stage), stage, seen, recipe)
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
