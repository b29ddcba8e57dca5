"""Measure the cost of quantizing each layer alone, and find the fewest layers to keep in float."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import onnx_ir as ir

from glesam_calibration.activations import StageStatistics
from glesam_calibration.bundle_comparison import Comparison
from glesam_calibration.quantizable_layers import block_of, find_layers
from glesam_calibration.quantize import Recipe, write_stage
from glesam_calibration.yardstick import Yardstick
from glesam_evaluation.plot import require_matplotlib
from glesam_runtime.bundle import Bundle
from glesam_runtime.errors import InputError, ParityError
from glesam_runtime.manifest import GOLDEN_FILE, STAGES, Gate, StageName

Unit = Literal["layer", "block"]
FORMAT, VERSION = "glesam-sensitivity", 1

_ERROR_OF: Mapping[StageName, Literal["encoder", "eps", "decoder"]] = {
    "encoder": "encoder",
    "enhancer": "eps",
    "decoder": "decoder",
}
"""The error that ranks the layers of a stage. For the enhancer it is eps, because the error of z_H
hides that of the U-Net."""


class Cost(msgspec.Struct, frozen=True):
    """The cost of quantizing one unit alone, with everything else in float32."""

    stage: StageName
    unit: str
    """Name of a layer or a block."""
    layers: tuple[str, ...]
    elements: int
    """Number of its weights."""
    iou_lost: float
    """1 - mean IoU with the float bundle's masks."""
    worst_iou: float
    stage_error: float
    """Relative L2 error of the stage's output; for the enhancer that of eps."""


class Ranking(msgspec.Struct, frozen=True):
    """The costs of all units, the highest first."""

    bundle: str
    """SHA-256 of the manifest of the float bundle."""
    kind: str
    method: str
    unit: Unit
    images: int
    costs: tuple[Cost, ...]
    format: str = FORMAT
    version: int = VERSION


def units_of(bundle: Bundle, unit: Unit) -> list[Cost]:
    """Return every layer or block of a bundle, with costs of 0."""
    found = []
    for stage in STAGES:
        layers = find_layers(ir.load(bundle.graph_path(stage)).graph)
        names: dict[str, list[str]] = {}
        sizes: dict[str, int] = {}
        for layer in layers:
            key = layer.name if unit == "layer" else block_of(layer.name)
            names.setdefault(key, []).append(layer.name)
            sizes[key] = sizes.get(key, 0) + layer.elements
        found += [Cost(stage, key, tuple(names[key]), sizes[key], 0.0, 1.0, 0.0) for key in names]
    return found


def rank(
    yardstick: Yardstick,
    seen: Mapping[StageName, StageStatistics],
    recipe: Recipe,
    unit: Unit,
    progress: Callable[[int, int], object],
    units: Sequence[Cost] | None = None,
) -> Ranking:
    """Measure the cost of each unit by quantizing it alone.

    Args:
        yardstick: yardstick of the float bundle.
        seen: statistics of the float bundle.
        recipe: how to quantize; its layers in float have no effect here.
        unit: one layer at a time, or one block.
        progress: called with the number of finished units and their total.
        units: some units of `units_of`; None is all of them.
    """
    bundle = yardstick.bundle
    layers = units_of(bundle, "layer")
    units = units_of(bundle, unit) if units is None else units
    costs = []
    for number, one in enumerate(units):
        others = [
            other.unit
            for other in layers
            if other.stage == one.stage and other.unit not in one.layers
        ]
        measured = _trial_of_stage(
            yardstick, seen[one.stage], replace(recipe, float_layers={one.stage: others}), one.stage
        )
        errors = [image.errors[_ERROR_OF[one.stage]].relative_l2 for image in measured.images]
        costs.append(
            msgspec.structs.replace(
                one,
                iou_lost=1 - measured.mean_iou,
                worst_iou=measured.worst_iou,
                stage_error=sum(errors) / len(errors),
            )
        )
        progress(number + 1, len(units))
    ordered = sorted(costs, key=lambda cost: (-cost.iou_lost, -cost.stage_error, cost.unit))
    images = min(yardstick.cases.count, len(yardstick.cases.dataset))
    return Ranking(bundle.sha256, recipe.kind, recipe.ranges_by, unit, images, tuple(ordered))


def trial(
    yardstick: Yardstick, seen: Mapping[StageName, StageStatistics], recipe: Recipe
) -> Comparison:
    """Quantize all stages into a temporary folder, and judge the bundle as a calibration does."""
    bundle = yardstick.bundle
    with tempfile.TemporaryDirectory(prefix="glesam-") as name:
        folder = Path(name)
        stages = {s: write_stage(bundle, s, seen[s], recipe, folder) for s in STAGES}
        shutil.copyfile(bundle.golden_path, folder / GOLDEN_FILE)
        manifest = msgspec.structs.replace(bundle.manifest, stages=stages)
        return yardstick.judge(Bundle(folder, manifest, ""))


def _trial_of_stage(
    yardstick: Yardstick, seen: StageStatistics, recipe: Recipe, stage: StageName
) -> Comparison:
    """Quantize one stage into a temporary folder, and compare the chain with the float one."""
    bundle = yardstick.bundle
    with tempfile.TemporaryDirectory(prefix="glesam-") as name:
        written = write_stage(bundle, stage, seen, recipe, Path(name))
        described = {**bundle.manifest.stages, stage: written}
        manifest = msgspec.structs.replace(bundle.manifest, stages=described)
        return yardstick.measure(Bundle(Path(name), manifest, ""), [stage])


def keep_fewest(
    yardstick: Yardstick,
    seen: Mapping[StageName, StageStatistics],
    recipe: Recipe,
    ranking: Ranking,
    target: float,
    gate: Gate,
) -> dict[StageName, tuple[str, ...]]:
    """Return the fewest of the costliest units that must stay in float, found by bisection.

    Args:
        yardstick: yardstick of the float bundle.
        seen: statistics of the float bundle.
        recipe: how to quantize.
        ranking: ranking of the same bundle.
        target: mean IoU with the float bundle's masks to reach.
        gate: gate whose limit on the worst mask must hold too; None in it is no limit.

    Raises:
        InputError: the ranking belongs to another bundle or type.
        ParityError: the target is not reached even with all units in float.
    """
    if (ranking.bundle, ranking.kind) != (yardstick.bundle.sha256, recipe.kind):
        raise InputError(
            "the sensitivity file is of another bundle or of another type; rank this bundle"
        )
    costs = [cost for cost in ranking.costs if cost.iou_lost > 0]
    wanted = Gate(None, target, gate.mask_iou_worst)

    def reaches(count: int) -> bool:
        kept = replace(recipe, float_layers=_by_stage(costs[:count]))
        return not trial(yardstick, seen, kept).failures(wanted)

    if reaches(0):
        return {}
    high = 1
    while not reaches(min(high, len(costs))):
        if high >= len(costs):
            raise ParityError(
                f"a mean mask IoU of {target:g} is not reached with any layers in "
                f"float; lower --target-iou"
            )
        high *= 2
    low, high = high // 2, min(high, len(costs))  # low does not reach it, high does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return _by_stage(costs[:high])


def _by_stage(costs: Collection[Cost]) -> dict[StageName, tuple[str, ...]]:
    found: dict[StageName, tuple[str, ...]] = {}
    for cost in costs:
        found[cost.stage] = (*found.get(cost.stage, ()), *cost.layers)
    return found


def read_ranking(path: Path) -> Ranking:
    """Read a ranking that `glesam-calibrate sensitivity` wrote.

    Raises:
        InputError: the file cannot be read, or is not such a file.
    """
    try:
        ranking = msgspec.json.decode(path.read_bytes(), type=Ranking)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a sensitivity.json ({error})") from error
    if (ranking.format, ranking.version) != (FORMAT, VERSION):
        raise InputError(
            f"{path}: is {ranking.format} version {ranking.version}, but {FORMAT} 1 is "
            f"needed; rank again"
        )
    return ranking


def draw_ranking(ranking: Ranking, path: Path, most: int = 30) -> None:
    """Write a bar chart (PNG) of the IoU lost and the stage error of the costliest units.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    # Without pyplot, matplotlib looks for no window system and keeps no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = ranking.costs[:most][::-1]
    figure = Figure(figsize=(11, 1.2 + 0.24 * len(shown)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    colours = {"encoder": "#0072b2", "enhancer": "#009e73", "decoder": "#d55e00"}
    names = [f"{cost.stage} {cost.unit}" for cost in shown]
    fills = [colours[cost.stage] for cost in shown]
    left.barh(names, [100 * cost.iou_lost for cost in shown], color=fills)
    left.set_xlabel("mask IoU lost, %")
    right.barh(names, [cost.stage_error for cost in shown], color=fills)
    right.set_xlabel("relative error of the stage (enhancer: of eps)")
    left.tick_params(labelsize=7)
    figure.suptitle(f"{ranking.kind}, each {ranking.unit} quantized alone", fontsize=10)
    figure.savefig(path, format="png")
