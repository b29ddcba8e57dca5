"""For a small bundle `auto` weighs the start of an engine against the work, and remembers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from glesam_runtime import (
    ExpectedWork,
    GleSamPredictor,
    InputError,
    cli,
    engine_pace,
    engine_selection,
    open_bundle,
)
from glesam_runtime.backends import BACKENDS, Costs
from glesam_runtime.backends.onnxruntime import OrtEngine
from glesam_runtime.backends.openvino import OpenVinoEngine
from glesam_runtime.engine_options import EngineOptions
from glesam_runtime.engine_selection import select_engine
from glesam_runtime.everything.parameters import Parameters
from glesam_runtime.expected_work import LASTING
from glesam_runtime.manifest import STAGES

LITTLE, MUCH = ExpectedWork(2, 2), ExpectedWork(200, 200, measure=False)


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file of remembered checks, which does not exist at first."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "glesam" / "checked.json"


@pytest.fixture
def slow_openvino(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every graph take time by a clock that only the engines move; record what ran."""
    ran: list[str] = []
    clock = [0.0]
    for kind, seconds in ((OrtEngine, 1.0), (OpenVinoEngine, 2.0)):
        monkeypatch.setattr(kind, "run", _timed(kind.run, seconds, clock, ran))
    monkeypatch.setattr(engine_pace.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(engine_pace.time, "process_time", lambda: clock[0])
    return ran


def _timed(run: Any, seconds: float, clock: list[float], ran: list[str]) -> Any:
    def timed(engine: Any, stage: Any, inputs: Any) -> Any:
        clock[0] += seconds
        ran.append(engine.name)
        return run(engine, stage, inputs)

    return timed


def reason_for(bundle: Path, work: ExpectedWork | None) -> str:
    selected = select_engine(open_bundle(bundle), work=work)
    assert selected.reason is not None
    assert selected.reason.startswith(selected.engine.name)
    return selected.reason


def test_little_work_starts_soon_and_much_runs_fast(toy_bundle: Path) -> None:
    for work, engine in ((None, "onnxruntime"), (LITTLE, "onnxruntime"), (MUCH, "openvino")):
        reason = reason_for(toy_bundle, work)
        assert reason.startswith(f"{engine} ")
        assert f"the fastest here for {work or ExpectedWork()} with a small bundle" in reason
        assert f"(estimated: {engine} " in reason
        assert "within the bundle's accuracy limits" in reason


def test_a_large_bundle_takes_the_higher_rate_for_one_image(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_selection, "_SMALL", 0)
    assert "on cpu in fp32: the fastest here, within" in reason_for(toy_bundle, LITTLE)
    assert reason_for(toy_bundle, LITTLE).startswith("openvino")


def test_much_work_is_measured_once(
    toy_bundle: Path, memory: Path, slow_openvino: list[str]
) -> None:
    """The estimate is for OpenVINO; the engines here say otherwise."""
    reason = reason_for(toy_bundle, LASTING)
    assert reason.startswith("onnxruntime")
    assert "measured per image and prompt: onnxruntime 3000 ms, openvino 6000 ms" in reason
    notes = [json.loads(note) for note in json.loads(memory.read_text()).values() if note]
    assert notes == [{"onnxruntime": [3.0 - 3.0, 2.0, 1.0], "openvino": [0.0, 4.0, 2.0]}]
    slow_openvino.clear()
    assert "measured: onnxruntime 90" in reason_for(toy_bundle, ExpectedWork(300, 300))
    assert slow_openvino == [], "neither the golden file nor a measurement ran again"
    assert "measured: onnxruntime 3.0 s" in reason_for(toy_bundle, None)


def test_a_measurement_of_other_options_is_not_used(
    toy_bundle: Path, slow_openvino: list[str]
) -> None:
    bundle = open_bundle(toy_bundle)
    reason_for(toy_bundle, LASTING)
    options = EngineOptions(threads=1)
    other = engine_pace.known(bundle, ["onnxruntime", "openvino"], STAGES, options)
    assert not other.measured
    assert engine_pace.known(bundle, ["onnxruntime", "openvino"], STAGES, EngineOptions()).measured


def test_programs_that_are_to_agree_do_not_measure(
    toy_bundle: Path, memory: Path, slow_openvino: list[str]
) -> None:
    """Nor do they use what another program measured."""
    reason_for(toy_bundle, LASTING)
    assert reason_for(toy_bundle, MUCH).startswith("openvino")
    assert "estimated" in reason_for(toy_bundle, MUCH)


@pytest.mark.parametrize("note", ["[]", "{", '{"onnxruntime": [1, 2, 3]}', '{"openvino": [1]}'])
def test_a_damaged_note_is_measured_again(
    note: str, toy_bundle: Path, memory: Path, slow_openvino: list[str]
) -> None:
    reason_for(toy_bundle, LASTING)
    known = json.loads(memory.read_text())
    memory.write_text(json.dumps({key: value and note for key, value in known.items()}))
    assert "measured" in reason_for(toy_bundle, LASTING)
    assert "onnxruntime" in slow_openvino


def test_an_engine_outside_the_limits_is_not_measured(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = OpenVinoEngine.run

    def off(*given: Any) -> dict[str, Any]:
        return {name: value * 1.01 for name, value in run(*given).items()}

    monkeypatch.setattr(OpenVinoEngine, "run", off)
    reason = reason_for(toy_bundle, LASTING)
    assert reason.startswith("onnxruntime")
    assert "not openvino on cpu exceeds the bundle's accuracy limits" in reason
    assert "measured" not in reason


def test_a_predictor_keeps_its_work(toy_bundle: Path) -> None:
    predictor = GleSamPredictor(toy_bundle, work=MUCH)
    assert predictor.engine.name == "openvino"
    assert pickle.loads(pickle.dumps(predictor)).engine.name == "openvino"  # noqa: S301


@pytest.mark.parametrize("images", [1, 40])
def test_glesam_run_counts_its_images(images: int, toy_bundle: Path, tmp_path: Path) -> None:
    for number in range(images):
        Image.new("RGB", (32, 24)).save(tmp_path / f"{number}.png")
    words = [str(tmp_path), "--bundle", str(toy_bundle), "--points", "9,9", "--json", "--no-files"]
    done = CliRunner().invoke(cli.app, words)
    assert done.exit_code == 0, done.stderr
    engine = json.loads(done.stdout)["engine"]
    assert engine["engine"] == ("onnxruntime" if images == 1 else "openvino")
    assert ("for 1 image and 1 prompt" if images == 1 else "for 40 images") in engine["reason"]


def test_everything_counts_crops_and_points() -> None:
    assert Parameters().work_on(2) == ExpectedWork(2, 2 * 32**2)
    layered = Parameters(points_per_side=8, crop_n_layers=1, crop_n_points_downscale_factor=2)
    assert layered.work_on(1) == ExpectedWork(1 + 4, 8**2 + 4 * 4**2)


def test_work_is_checked_and_added_up() -> None:
    assert ExpectedWork(3, 10).seconds(Costs(start=1.0, image=2.0, prompt=0.5)) == 1 + 6 + 5
    with pytest.raises(InputError, match="-1 prompts"):
        ExpectedWork(1, -1)


def test_every_backend_for_onnx_bundles_has_costs() -> None:
    for backend in BACKENDS.values():
        assert (backend.costs is None) == backend.compiled
