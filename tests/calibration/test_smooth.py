"""Test that smoothing keeps the function and evens out the channels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from glesam_calibration.quantizable_layers import find_layers
from glesam_calibration.quantize import Recipe, quantized
from glesam_calibration.smooth import find_sites, migrate
from glesam_calibration.statistics import Statistics

from .graphs import normed, run

X = np.random.default_rng(3).normal(size=(1, 5, 24)).astype(np.float32)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_stays_and_channels_are_evened(alpha: float) -> None:
    model = normed()
    wanted, flowing = run(model, X, "w")
    seen = Statistics(channels=24)
    seen.update(flowing)
    sites = find_sites(model.graph, find_layers(model.graph))
    assert [(site.norm, [layer.name for layer in site.layers]) for site in sites] == [
        ("norm", ["q", "k"])
    ]
    ranges = migrate(model.graph, sites, {"w": seen}, alpha)
    found, after = run(model, X, "w")
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    magnitudes = np.abs(after).reshape(-1, 24).max(axis=0)
    assert ranges["w"] == pytest.approx(magnitudes.max(), rel=1e-5)
    unevenness = magnitudes.max() / np.median(magnitudes)
    if alpha == 0.5:
        before = np.abs(flowing).reshape(-1, 24).max(axis=0)
        assert unevenness < 0.2 * before.max() / np.median(before)
    if alpha == 1.0:
        np.testing.assert_allclose(magnitudes, 1, rtol=1e-5)


def test_a_layer_whose_input_stays_float_is_smoothed_with_the_others(tmp_path: Path) -> None:
    model = normed()
    wanted, flowing = run(model, X, "w")
    ir.save(model, tmp_path / "graph.onnx")
    seen = Statistics(channels=24)
    seen.update(flowing)
    layers = find_layers(model.graph)
    assert {layer.activation for layer in layers} == {"w"}
    recipe = Recipe(smoothing=0.5, float_inputs={"encoder": "q"})
    quantized_model, islands = quantized(tmp_path / "graph.onnx", "encoder", {"w": seen}, recipe)
    assert "input of q" in islands
    assert "input of k" not in islands
    found, _ = run(quantized_model, X, "w")
    assert np.linalg.norm(found - wanted) < 0.03 * np.linalg.norm(wanted)


def test_a_norm_that_something_else_reads_is_left_alone() -> None:
    graph = normed(norm_is_read_elsewhere=True).graph
    assert find_sites(graph, find_layers(graph)) == ()


def test_a_dead_channel_is_no_division_by_zero() -> None:
    model = normed()
    wanted, flowing = run(model, X, "w")
    flowing[..., 7] = 0
    seen = Statistics(channels=24)
    seen.update(flowing)
    migrate(model.graph, find_sites(model.graph, find_layers(model.graph)), {"w": seen}, 0.5)
    np.testing.assert_allclose(run(model, X)[0], wanted, atol=1e-4 * np.abs(wanted).max())
