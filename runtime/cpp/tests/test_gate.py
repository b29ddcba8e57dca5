"""The C++ library and Python decide alike which images to enhance."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cases import random_case
from safetensors.numpy import load_file, save_file

from glesam_runtime import GleSamPredictor, manifest_file, open_bundle
from glesam_runtime.bundle import Bundle
from glesam_runtime.enhancement_gate import CHANNELS, EnhancementGate, GateTraining
from glesam_runtime.enhancing import estimate_gain
from glesam_runtime.image import Geometry

EMBEDDINGS = 1000
PICTURES = 20 if os.environ["GLESAM_CPP_FLAGS"] else int(os.environ.get("GLESAM_GATE_PICTURES", 60))
"""Pictures that both encode themselves; GLESAM_GATE_PICTURES changes the number."""
SIDES = (4, 16, 20, 64)


@pytest.fixture
def gated(nano: Path, tmp_path: Path) -> Path:
    """Return a copy of nano with a gate."""
    return with_gate(nano, tmp_path / "gated")


def with_gate(source: Path, folder: Path) -> Path:
    """Copy a bundle and give it a gate that is undecided about random pictures."""
    shutil.copytree(source, folder)
    bundle = open_bundle(folder)
    weights = np.random.default_rng(7).normal(size=2 * CHANNELS)
    gate = EnhancementGate(
        encoder=bundle.stage_sha256("encoder"),
        enhancer=bundle.stage_sha256("enhancer"),
        features="channel_moments",
        weights=tuple(map(float, weights)),
        bias=0.1,
        threshold=0.0,
        target="iou",
        training=GateTraining("none", 10, 40, ("clear",), 0, 0.0, 0.5, ()),
    )
    write_gate(bundle, gate)
    predictor = GleSamPredictor(folder, backend="openvino")
    estimates = []
    for index in range(9):
        predictor.set_image(random_case(index, 64).image)
        estimates.append(predictor.estimate)
    write_gate(bundle, msgspec.structs.replace(gate, threshold=float(np.median(estimates))))
    return folder


def write_gate(bundle: Bundle, gate: EnhancementGate) -> None:
    made = msgspec.structs.replace(bundle.manifest, enhancement_gate=gate)
    (bundle.path / "manifest.json").write_bytes(manifest_file.dump(made))


def decided(
    programs: Path, folder: Path, cases: dict[str, np.ndarray], *backend: str
) -> dict[str, np.ndarray]:
    files = [str(folder.parent / f"{name}.safetensors") for name in ("cases", "results")]
    save_file(cases, files[0])
    subprocess.run([programs / "decisions", folder, *files, *backend], check=True)
    return load_file(files[1])


def test_estimates_have_the_same_bits(programs: Path, gated: Path) -> None:
    gate = open_bundle(gated).manifest.enhancement_gate
    assert isinstance(gate, EnhancementGate)
    rng = np.random.default_rng(0)
    cases, want = {}, []
    for index in range(EMBEDDINGS):
        side = SIDES[index % len(SIDES)] if index % 100 == 3 else 16
        z_l = rng.normal(rng.normal(), rng.random() * 3, (1, CHANNELS, side, side))
        resized = rng.integers(1, 16 * side, 2, endpoint=True)
        cases[f"{index}.z"] = z_l.astype(np.float32)
        cases[f"{index}.resized"] = resized
        geometry = Geometry(16 * side, tuple(map(int, resized)), (1, 1))
        want.append(estimate_gain(gate, cases[f"{index}.z"], geometry))
    found = decided(programs, gated, cases)
    estimates = np.array([found[f"{index}.estimate"][0] for index in range(EMBEDDINGS)])
    assert estimates.tobytes() == np.array(want).tobytes()
    enhanced = [bool(found[f"{index}.enhanced"][0]) for index in range(EMBEDDINGS)]
    assert enhanced == [estimate > gate.threshold for estimate in want]
    assert 0 < sum(enhanced) < EMBEDDINGS


def test_pictures_are_decided_alike(programs: Path, gated: Path, backend: list[str]) -> None:
    predictor = GleSamPredictor(gated, backend=backend[0])
    pictures = [random_case(index, 64).image for index in range(PICTURES)]
    found = decided(programs, gated, {f"{i}.image": p for i, p in enumerate(pictures)}, *backend)
    taken = []
    for index, picture in enumerate(pictures):
        predictor.set_image(picture)
        assert found[f"{index}.estimate"][0] == pytest.approx(
            predictor.estimate, rel=1e-4, abs=1e-4
        )
        assert bool(found[f"{index}.enhanced"][0]) == predictor.enhanced
        taken.append(predictor.enhanced)
    assert 0 < sum(taken) < PICTURES
    print(f"{PICTURES} pictures, {sum(taken)} enhanced")


def test_wrong_gates_are_one_line(gated: Path, programs: Path) -> None:
    manifest = gated / "manifest.json"
    right = json.loads(manifest.read_bytes())
    for change, words in (
        ({"encoder": "0" * 64}, "was learned for another encoder (000000000000 instead of "),
        ({"enhancer": "0" * 64}, "was learned for another enhancer (000000000000 instead of "),
        ({"weights": [1.0] * 511}, "`$.enhancement_gate.weights`: must have 512 items"),
        ({"weights": [1.0] * 513}, "`$.enhancement_gate.weights`: must have 512 items"),
        ({"threshold": 1e300}, "`$.enhancement_gate.threshold`: 1e+300 is out of range"),
        ({"bias": float("nan")}, "not a bundle manifest"),
    ):
        wrong = {**right, "enhancement_gate": {**right["enhancement_gate"], **change}}
        manifest.write_text(json.dumps(wrong))
        save_file({}, gated.parent / "none.safetensors")
        done = subprocess.run(
            [programs / "decisions", gated, gated.parent / "none.safetensors", "unused"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert words in done.stderr
    del right["enhancement_gate"]
    manifest.write_text(json.dumps(right))
    done = subprocess.run(
        [programs / "decisions", gated, gated.parent / "none.safetensors", "unused"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "has no gate to enhance by" in done.stderr
