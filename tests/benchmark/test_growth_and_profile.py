"""glesam-bench growth and profile: every axis and every stage, against independent sums."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_benchmark import growth, profile

Bench = Callable[..., tuple[int, str, str]]


def test_growth(
    glesam_bench: Bench, here: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(growth, "IMAGES", (1, 3))
    monkeypatch.setattr(growth, "SIDES", (256, 2048))
    code, out, err = glesam_bench(
        "growth", "--backend", "openvino", "--threads", 1, "--rounds", 2, "-o", tmp_path
    )
    assert code == 0, err
    document = json.loads((tmp_path / "growth.json").read_text())
    assert document["about"]["preset"] == "nano"
    series = {
        each["axis"]: {point["size"]: point["seconds"] for point in each["points"]}
        for each in document["engines"]["openvino"]["series"]
    }
    assert {axis: tuple(points) for axis, points in series.items()} == {
        "prompts": (1, 4, 16, 64),
        "points": (1, 2, 4, 8),
        "preprocessing": (256, 2048),
        "postprocessing": (256, 2048),
        "images": (1, 3),
    }
    for axis, smallest, largest in (
        ("prompts", 1, 64),
        ("preprocessing", 256, 2048),
        ("postprocessing", 256, 2048),
    ):
        assert series[axis][largest]["min"] > 2 * series[axis][smallest]["min"]
    for points in series.values():
        assert all(len(figures["rounds"]) == 2 for figures in points.values())
    for words, _ in growth.AXIS_LABELS.values():
        assert words in out
    with Image.open(tmp_path / "growth.png") as picture:
        assert np.asarray(picture.convert("RGB")).std() > 5


def test_growth_by_images_counts_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each size runs glesam-run on that many files, with the requested engine."""
    commands: list[list[str]] = []
    monkeypatch.setattr(growth, "_run", commands.append)
    from glesam_runtime.bundle import open_bundle
    from glesam_runtime.engine_options import RequestedEngine

    picture = np.zeros((30, 40, 3), np.uint8)
    choice = RequestedEngine("openvino", "cpu", "bf16", 2, cache=tmp_path)
    found = growth._images(open_bundle(), choice, picture, 2)
    assert [point.size for point in found.points] == [1, 2, 4, 8]
    files = [[word for word in command if word.endswith(".png")] for command in commands]
    assert [len(each) for each in files] == [1, 1, 2, 2, 4, 4, 8, 8]
    joined = " ".join(commands[0])
    for words in ("--backend openvino", "--precision bf16", "--threads 2", f"--cache {tmp_path}"):
        assert words in joined


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_profile(backend: str, glesam_bench: Bench, here: None, tmp_path: Path) -> None:
    options = "--backend", backend, "--threads", 1, "--rounds", 3, "--top", 2
    code, out, err = glesam_bench("profile", *options, "-o", tmp_path)
    assert code == 0, err
    document = json.loads((tmp_path / "profile.json").read_text())
    stages = document["engines"][backend]["stages"]
    assert [stage["stage"] for stage in stages] == ["encoder", "enhancer", "decoder"]
    for stage in stages:
        nodes = stage["nodes"]
        costs = [node["seconds"] for node in nodes]
        assert costs == sorted(costs, reverse=True)
        assert len(nodes) > 50
        for kind in stage["types"]:
            of_kind = [node["seconds"] for node in nodes if node["type"] == kind["type"]]
            assert kind["count"] == len(of_kind)
            assert kind["seconds"] == pytest.approx(sum(of_kind))
        # With one thread, the nodes' times sum to most of the run's wall time, and to no more.
        assert 0.3 * stage["seconds"] < sum(costs) < 1.2 * stage["seconds"]
        assert stage["types"][0]["type"] in out
        assert len(stage["types"]) > 3
    assert not list(Path.cwd().glob("onnxruntime_profile*"))


@pytest.mark.parametrize("profiler", ["onnxruntime", "openvino"])
def test_a_profiler_is_found_by_its_name(profiler: str) -> None:
    """Check that every profiler opens a graph with the signature that `OpenGraph` describes."""
    opener = profile.opener_of(profiler)
    assert list(inspect.signature(opener).parameters) == ["bundle", "stage", "options", "precision"]
