"""Test the ranking, and the search for the fewest layers to keep in float."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glesam_calibration import calibrator, sensitivity, yardstick
from glesam_calibration.calibrator import Data, Talk
from glesam_calibration.quantize import Recipe
from glesam_calibration.sensitivity import Cost, Ranking, keep_fewest
from glesam_runtime import InputError, ParityError, open_bundle
from glesam_runtime.manifest import Gate

OPEN = Gate(None, None, None)
YARDSTICK = SimpleNamespace(bundle=SimpleNamespace(sha256="b"))


def ranking(lost: list[float]) -> Ranking:
    costs = [Cost("encoder", f"l{i}", (f"l{i}",), 1, one, 1.0, 0.0) for i, one in enumerate(lost)]
    ordered = sorted(costs, key=lambda cost: -cost.iou_lost)
    return Ranking("b", "int8", "percentile", "layer", 1, tuple(ordered))


@given(
    st.lists(st.floats(0.0001, 0.02), min_size=1, max_size=25, unique=True),
    st.floats(0.8, 0.9999),
)
def test_the_fewest_that_reach_the_target(lost: list[float], target: float) -> None:
    trials: list[int] = []

    def trial(_: object, __: object, recipe: Recipe) -> SimpleNamespace:
        kept = set(recipe.float_layers.get("encoder", ()))
        trials.append(len(kept))
        iou = 1 - sum(one for i, one in enumerate(lost) if f"l{i}" not in kept)
        return SimpleNamespace(failures=lambda gate: [] if iou >= gate.mask_iou_mean else ["low"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "trial", trial)
        kept = keep_fewest(YARDSTICK, {}, Recipe(), ranking(lost), target, OPEN)  # type: ignore[arg-type]
    left = sorted(lost)  # units that may stay quantized, the cheapest first
    fewest = next(n for n in range(len(lost) + 1) if 1 - sum(left[: len(left) - n]) >= target)
    assert len(kept.get("encoder", ())) == fewest
    assert len(trials) <= 2 + 2 * len(lost).bit_length()


def test_what_cannot_be_reached_is_told() -> None:
    hopeless = SimpleNamespace(failures=lambda _: ["low"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "trial", lambda *_: hopeless)
        with pytest.raises(ParityError, match="not reached with any layers in float"):
            keep_fewest(YARDSTICK, {}, Recipe(), ranking([0.1, 0.2]), 0.999, OPEN)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="of another bundle or of another type"):
        keep_fewest(YARDSTICK, {}, Recipe("fp8"), ranking([0.1]), 0.9, OPEN)  # type: ignore[arg-type]


def test_a_ranking_on_nano(data: Data, quiet: Talk, statistics: Path, tmp_path: Path) -> None:
    bundle = open_bundle()
    kept = shutil.copytree(statistics, tmp_path / "state")
    _, _, seen = calibrator.take_statistics(bundle, data, kept, True, quiet)
    judge = yardstick.Yardstick(bundle, calibrator.gate_cases(data))
    units = sensitivity.units_of(bundle, "block")
    assert {unit.stage for unit in units} == {"encoder", "enhancer", "decoder"}
    assert sum(len(unit.layers) for unit in units) == 27 + 105 + 51
    chosen = ("blocks.0", "conv_out", "upscaling.3", "hypernetworks.3")
    few = [unit for unit in units if unit.unit in chosen]
    recipe = Recipe(weights_only=())
    found = sensitivity.rank(judge, seen, recipe, "block", lambda *_: None, few)
    lost = [cost.iou_lost for cost in found.costs]
    assert lost == sorted(lost, reverse=True)
    by_unit = {cost.unit: cost for cost in found.costs}
    # The fourth mask's head has no part in the single mask.
    assert by_unit["hypernetworks.3"].iou_lost == 0
    assert by_unit["hypernetworks.3"].stage_error > 0
    assert by_unit["blocks.0"].iou_lost > 0
    assert len(by_unit["blocks.0"].layers) == 4

    path = tmp_path / "sensitivity.json"
    path.write_bytes(msgspec.json.encode(found))
    assert sensitivity.read_ranking(path) == found
    sensitivity.draw_ranking(found, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    path.write_text("[]")
    with pytest.raises(InputError, match=r"not a sensitivity\.json"):
        sensitivity.read_ranking(path)
