"""What it costs to quantize each layer alone, and the fewest to keep in float for a given IoU."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
import onnx_ir as ir

from glesam_calibration.compare import Yardstick
from glesam_calibration.comparison import Comparison
from glesam_calibration.layers import block_of, find_layers
from glesam_calibration.observe import Observed
from glesam_calibration.quantize import Recipe, write_stage
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
"""The stage error that tells: z_H hides what the U-Net does."""


class Cost(msgspec.Struct, frozen=True):
    """What quantizing one unit alone costs, everything else in float32."""

    stage: StageName
    unit: str
    """A layer's name, or a block's."""
    layers: tuple[str, ...]
    elements: int
    """Weights in it."""
    iou_lost: float
    """1 - mean IoU with the float bundle's masks."""
    worst_iou: float
    stage_error: float
    """Relative L2 of the stage's output; of the enhancer that of eps."""


class Ranking(msgspec.Struct, frozen=True):
    """Costs, highest first."""

    bundle: str
    """sha256 of the float bundle's manifest."""
    kind: str
    method: str
    unit: Unit
    images: int
    costs: tuple[Cost, ...]
    format: str = FORMAT
    version: int = VERSION


def units_of(bundle: Bundle, unit: Unit) -> list[Cost]:
    """Every layer or block of a bundle, its costs not known yet."""
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
    seen: Mapping[StageName, Observed],
    recipe: Recipe,
    unit: Unit,
    progress: Callable[[int, int], object],
    units: Sequence[Cost] | None = None,
) -> Ranking:
    """Quantize each unit alone and measure.

    Args:
        yardstick: of the float bundle.
        seen: its statistics.
        recipe: how to quantize; what it keeps in float makes no difference here.
        unit: one layer at a time, or one block.
        progress: told how many units are done, and of how many.
        units: some of `units_of`; None is all of them.
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


def trial(yardstick: Yardstick, seen: Mapping[StageName, Observed], recipe: Recipe) -> Comparison:
    """Quantize all stages into a temporary folder, and judge the bundle as a calibration does."""
    bundle = yardstick.bundle
    with tempfile.TemporaryDirectory(prefix="glesam-") as name:
        folder = Path(name)
        stages = {s: write_stage(bundle, s, seen[s], recipe, folder) for s in STAGES}
        shutil.copyfile(bundle.golden_path, folder / GOLDEN_FILE)
        manifest = msgspec.structs.replace(bundle.manifest, stages=stages)
        return yardstick.judge(Bundle(folder, manifest, ""))


def _trial_of_stage(
    yardstick: Yardstick, seen: Observed, recipe: Recipe, stage: StageName
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
    seen: Mapping[StageName, Observed],
    recipe: Recipe,
    ranking: Ranking,
    target: float,
    gate: Gate,
) -> dict[StageName, tuple[str, ...]]:
    """The fewest of the costliest units to keep in float, by doubling and halving their number.

    Args:
        yardstick: of the float bundle.
        seen: its statistics.
        recipe: how to quantize.
        ranking: of the same bundle.
        target: the mean IoU to reach with the float bundle's masks.
        gate: what the worst mask has to reach besides; None in it asks for nothing.

    Raises:
        InputError: a ranking of another bundle or type.
        ParityError: not even all of them in float reach it.
    """
    if (ranking.bundle, ranking.kind) != (yardstick.bundle.sha256, recipe.kind):
        raise InputError("the sensitivity file is of another bundle or of another type")
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
                f"a mean mask IoU of {target:g} is not reached with any layers in float"
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
    """Read what `glesam-calibrate sensitivity` wrote.

    Raises:
        InputError: unreadable, or not such a file.
    """
    try:
        ranking = msgspec.json.decode(path.read_bytes(), type=Ranking)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a sensitivity.json ({error})") from error
    if (ranking.format, ranking.version) != (FORMAT, VERSION):
        raise InputError(f"{path}: {ranking.format} version {ranking.version}, not {FORMAT} 1")
    return ranking
