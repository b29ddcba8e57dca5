"""Programs choose among the timesteps of a bundle, and refuse one that it does not have."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from glesam_runtime import GleSamPredictor, console
from glesam_runtime.bundle import open_bundle
from glesam_runtime.cli import app
from glesam_runtime.errors import BundleError
from glesam_runtime.selftest import run_selftest

from ..leveled import STEPS, write_leveled


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_leveled(tmp_path_factory.mktemp("levels") / "bundle")


def run_here(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = console.exit_code_of(app, "glesam-run", [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def embedding(predictor: GleSamPredictor) -> np.ndarray:
    predictor.set_image(np.full((40, 60, 3), 90, np.uint8))
    return predictor.get_image_embedding()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_predictor_runs_the_timestep_that_was_chosen(bundle: Path, backend: str) -> None:
    wanted = embedding(GleSamPredictor(backend=backend))
    predictor = GleSamPredictor(bundle, backend=backend)
    assert predictor.timestep == STEPS[0]
    for level, step in enumerate(STEPS):
        predictor.timestep = step
        np.testing.assert_allclose(embedding(predictor), wanted * (1 + level), rtol=1e-4, atol=1e-5)
    chosen = GleSamPredictor(bundle, backend=backend, timestep=400)
    np.testing.assert_array_equal(embedding(chosen), embedding(predictor))
    again = pickle.loads(pickle.dumps(chosen))  # noqa: S301 - made by this test
    assert (again.timestep, chosen.share().timestep) == (400, 400)


def test_the_self_test_passes(bundle: Path) -> None:
    assert run_selftest(open_bundle(bundle), "onnxruntime").passed


def test_the_command_says_which_timestep_ran(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = "--demo", "--json", "--no-enhance", "-o", tmp_path
    code, out, _ = run_here(capsys, *(w for w in common if w != "--no-enhance"), "--bundle", bundle)
    assert (code, json.loads(out)["timestep"]) == (0, 1)
    code, out, _ = run_here(capsys, *common, "--bundle", bundle)
    assert code == 0
    assert "timestep" not in json.loads(out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--timestep", 3), "timestep 3: this bundle has 1, 100, 400; choose one of them"),
        (("--timestep", 1, "--no-enhance"), "goes with the enhancer, which does not run"),
        (("--timestep", 1, "--selftest"), "--selftest tests every timestep"),
    ],
)
def test_wrong_timesteps_are_one_line(
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[object, ...],
    message: str,
) -> None:
    demo = () if "--selftest" in options else ("--demo", "-o", tmp_path / "out")
    code, out, err = run_here(capsys, *demo, "--bundle", bundle, *options)
    (line,) = (line for line in err.splitlines() if line.startswith("error"))
    assert (code, out) == (2, "")
    assert message in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").glob("*mask*"))


def test_a_bundle_without_levels_refuses_a_timestep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run_here(capsys, "--demo", "-o", tmp_path, "--timestep", 1)
    assert code == 2
    assert "timestep 1: this bundle has timestep 1 only; leave it out" in err


def test_a_golden_file_without_a_timestep_is_refused(bundle: Path, tmp_path: Path) -> None:
    from msgspec.structs import replace
    from safetensors.numpy import load_file, save_file

    from glesam_runtime.bundle import file_ref
    from glesam_runtime.manifest_file import dump

    copy = write_leveled(tmp_path / "copy")
    golden = load_file(copy / "golden.safetensors")
    del golden["enhanced_embeddings_400"]
    save_file(golden, copy / "golden.safetensors")
    manifest = replace(open_bundle(bundle).manifest, golden=file_ref(copy / "golden.safetensors"))
    (copy / "manifest.json").write_bytes(dump(manifest))
    with pytest.raises(BundleError, match="lacks enhanced_embeddings_400"):
        run_selftest(open_bundle(copy), "onnxruntime")
