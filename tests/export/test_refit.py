"""Engines without weights accept the weights of a bundle that differs in its weights only."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from glesam_export.engines.refit import refit_bundle
from glesam_runtime import GleSamPredictor
from glesam_runtime.bundle import Bundle, builtin_bundle_path, open_bundle
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import MANIFEST_FILE, STAGES
from glesam_runtime.manifest_file import dump

from ..runtime.fake_tensorrt import BUILD, FakeCuda, engine_bundle, install

GAMMA = 3.0
STRIPPED = replace(BUILD, stripped=True, refittable=True)


def step(what: str) -> nullcontext[None]:
    return nullcontext()


@pytest.fixture(scope="module")
def other(nano_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the built-in nano's bundle: other weights, and another gamma in the manifest.

    The manifest states the timestep of `nano_bundle`; graphs of two timesteps differ in weights.
    """
    built_in = builtin_bundle_path()
    folder = Path(shutil.copytree(built_in, tmp_path_factory.mktemp("other") / "bundle"))
    source, model = open_bundle(folder), open_bundle(nano_bundle).manifest.model
    assert source.manifest.model.timestep != model.timestep
    model = replace(model, gamma=GAMMA)
    (folder / MANIFEST_FILE).write_bytes(dump(replace(source.manifest, model=model, parity=None)))
    return folder


def test_the_engines_compute_what_the_new_bundle_does(
    nano_bundle: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, FakeCuda())
    old = open_bundle(engine_bundle(nano_bundle, tmp_path / "old", STRIPPED))
    source = open_bundle(other)
    written = refit_bundle(old, source, tmp_path / "new", step)
    new = open_bundle(tmp_path / "new")
    assert new.manifest == written
    assert written.model.gamma == GAMMA
    assert written.target.build is not None
    assert written.target.build.source == source.sha256
    for stage in STAGES:
        assert new.graph_path(stage).read_bytes() == old.graph_path(stage).read_bytes()
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    answers = []
    # The backend is named: the golden file belongs to another checkpoint, so none would pass.
    for bundle, backend in ((new, "tensorrt"), (source, "onnxruntime")):
        predictor = GleSamPredictor(bundle, backend=backend)
        predictor.set_image(image)
        answers.append(predictor.predict(np.array([[20, 30]]), np.array([1]), return_logits=True))
    for found, wanted in zip(*answers, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_refusals(nano_bundle: Path, nano16_bundle: Path, other: Path, tmp_path: Path) -> None:
    stripped = open_bundle(engine_bundle(nano_bundle, tmp_path / "stripped", STRIPPED))
    whole = open_bundle(engine_bundle(nano_bundle, tmp_path / "whole"))
    source = open_bundle(other)
    model = replace(source.manifest.model, timestep=1)
    elsewhen = Bundle(source.path, replace(source.manifest, model=model), source.sha256)
    for engines, graphs, words in (
        (whole, source, "hold their weights; compile with --strip-weights"),
        (source, source, "hold their weights"),
        (stripped, whole, "pass the ONNX bundle"),
        (stripped, elsewhen, "timestep 1, the engines have 999"),
        (stripped, open_bundle(nano16_bundle), "encoder differs from the engine's in more than"),
    ):
        with pytest.raises(InputError, match=words):
            refit_bundle(engines, graphs, tmp_path / "new", step)
        assert not (tmp_path / "new").exists()


def test_the_command(glesam_export: object, nano_bundle: Path, other: Path, tmp_path: Path) -> None:
    folder = engine_bundle(nano_bundle, tmp_path / "old", STRIPPED)
    code, out, err = glesam_export(  # type: ignore[operator]
        "refit", folder, "--bundle", other, "-o", tmp_path / "new"
    )
    assert code == 0, err
    assert "--selftest" in out
    assert open_bundle(tmp_path / "new").manifest.model.gamma == GAMMA
