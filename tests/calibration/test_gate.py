"""A gate is learned from cases, judged on pictures that no fit has seen, and written at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from glesam_calibration import gate, gate_cases, gate_fit
from glesam_calibration.cli import app
from glesam_calibration.gate_cases import GateCases
from glesam_evaluation.segmenters import BundleStages
from glesam_runtime import GleSamPredictor, InputError, console, open_bundle, sample_image
from glesam_runtime.bundle import builtin_bundle_path
from glesam_runtime.enhancement_gate import EnhancementGate


def invented(pictures: int = 20, noise: float = 0.0) -> GateCases:
    """Return cases whose gain is a linear function of two features, plus noise."""
    rng = np.random.default_rng(0)
    kinds = np.array(["clear", "LQ-1", "LQ-2", "LQ-3"] * pictures)
    features = rng.normal(size=(len(kinds), 512))
    features[:, 7] = 3.0  # constant, as of a dead channel
    features[:, 0] += np.where(kinds == "clear", -2, 2)
    gains = 0.02 * features[:, 0] - 0.01 * features[:, 300] + noise * rng.normal(size=len(kinds))
    scores = np.stack([np.zeros(len(kinds)), gains], axis=1)
    return GateCases(features, gains, scores, np.repeat(np.arange(pictures), 4), kinds)


def test_a_small_penalty_gives_least_squares() -> None:
    cases = invented(200)
    chosen = [0, 300, 5, 7]
    fitted = gate_fit.fit_ridge(cases.features[:, chosen], cases.gains, 1e-9)
    design = np.column_stack([cases.features[:, chosen[:3]], np.ones(len(cases.gains))])
    want = np.linalg.lstsq(design, cases.gains, rcond=None)[0]
    np.testing.assert_allclose(fitted.weights, [*want[:3], 0], atol=1e-8)
    assert fitted.bias == pytest.approx(want[3], abs=1e-8)


def test_what_a_fit_expects_is_the_mean_of_the_condition_cut_at_their_median() -> None:
    kinds = np.array(["a", "b", "c", "a", "b", "c"])
    gains = np.array([0.0, -0.03, 0.4, 0.02, -0.01, 0.6])
    # Means 0.01, -0.02 and 0.5; the median of their absolute values is 0.02.
    expected = gate_fit.expected_gains(gains, kinds)
    np.testing.assert_allclose(expected, [0.01, -0.02, 0.02] * 2, rtol=1e-12)
    np.testing.assert_array_equal(gate_fit.expected_gains(gains, np.array(["a"] * 6)), gains)


def test_the_area_is_the_statistic_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(1)
    gains, estimates = rng.normal(size=60), np.round(rng.normal(size=60), 1)
    area, curve = gate_fit.curve_of(gains, estimates)
    good, bad = estimates[gains > 0], estimates[gains <= 0]
    want = mannwhitneyu(good, bad).statistic / (len(good) * len(bad))
    assert area == pytest.approx(want)
    assert curve[-1].enhanced == 0
    hits = [point.hits for point in curve]
    assert hits == sorted(hits, reverse=True)


def test_the_threshold_loses_within_the_tolerance() -> None:
    cases = invented(50)
    chosen = gate_fit.choose_threshold(cases.gains, cases.kinds, cases.gains)
    made = gate_fit.outcome(cases.gains, cases.kinds, cases.gains, chosen)
    assert made.worst <= gate_fit.TOLERANCE
    assert made.enhanced < (cases.gains > 0).mean() + 0.01
    hopeless = gate_fit.choose_threshold(cases.gains, cases.kinds, -cases.gains)
    assert np.isfinite(hopeless)


def test_a_learned_gate_separates_what_it_can(tmp_path: Path) -> None:
    bundle = open_bundle()
    made, outcome = gate.learn_gate(bundle, invented(400), "iou", gate.Source("invented", 3))
    assert made.training.area > 0.95
    assert (made.training.pictures, made.training.cases) == (400, 1600)
    assert outcome.enhanced < 0.95
    folder = gate.write_gate(bundle, made, tmp_path / "gated")
    opened = open_bundle(folder)
    assert opened.manifest.enhancement_gate == made
    predictor = GleSamPredictor(folder, backend="onnxruntime")
    predictor.set_image(sample_image())
    assert predictor.estimate is not None


def test_too_few_pictures_and_nan_are_refused() -> None:
    bundle, source = open_bundle(), gate.Source("here", 0)
    with pytest.raises(InputError, match="here: 9 pictures; a gate needs at least 10"):
        gate.learn_gate(bundle, invented(9), "iou", source)
    broken = invented()
    broken.features[3, 3] = np.nan
    with pytest.raises(InputError, match="returned NaN or infinity"):
        gate.learn_gate(bundle, broken, "iou", source)


def test_what_is_measured_is_what_the_stages_return() -> None:
    stages = BundleStages(open_bundle(), "onnxruntime")
    pictures = gate_cases.open_pictures("scenes:1@7000000", None, need_masks=True)
    kinds = ["clear", "LQ-3", "elastic_transform"]
    found = gate_cases.measure_cases(
        stages, pictures, kinds, ["latent", "agreement", "iou"], 0, lambda done, total: None
    )
    assert list(found["iou"].kinds) == kinds
    assert list(found["latent"].kinds) == list(found["agreement"].kinds) == kinds[:2]
    assert found["latent"].scores[0, 0] == 0
    assert found["agreement"].scores[0, 0] == 1
    assert found["latent"].gains[1] > 0
    np.testing.assert_array_equal(found["iou"].features[:2], found["latent"].features)
    predictor = GleSamPredictor(backend="onnxruntime", enhance=False)
    predictor.set_image(next(pictures.each()).image)
    means = predictor.get_image_embedding()[0].astype(np.float64).mean(axis=(1, 2))
    np.testing.assert_allclose(found["iou"].features[0, :256], means, atol=1e-9)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = console.exit_code_of(app, "glesam-calibrate", ["gate", *map(str, words)])
    return code, capsys.readouterr().err


def test_the_command_writes_a_gate_in_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = Path(shutil.copytree(builtin_bundle_path(), tmp_path / "bundle"))
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    words = ("--conditions", "clear,LQ-3", "--target", "latent")
    code, err = run(capsys, bundle, "scenes:10@7000000", *words)
    assert code == 0, err
    made = open_bundle(bundle).manifest.enhancement_gate
    assert isinstance(made, EnhancementGate)
    assert (made.target, made.training.kinds) == ("latent", ("clear", "LQ-3"))
    after = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"manifest.json"}
    assert set(before) == set(after)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nano", "scenes:10"), "the built-in bundle stays as it is; add -o DIR"),
        (("nano", "scenes:9", "-o", "made"), "scenes:9: 9 pictures; a gate needs at least 10"),
        (("nano", "scenes:10", "-o", "made", "--target", "speed"), "must be latent, agreement or"),
        (("nano", "nowhere", "-o", "made"), "nowhere: no such folder or file"),
        (("nano", "scenes:10", "-o", "made", "--conditions", "mist"), "condition 'mist'"),
    ],
)
def test_wrong_arguments_are_one_line_and_write_nothing(
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = run(capsys, *words)
    assert (code, err.count("\n")) == (2, 1), err
    assert message in err
    assert not (tmp_path / "made").exists()
