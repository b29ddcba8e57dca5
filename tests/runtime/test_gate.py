"""A gate decides which images are enhanced, and either branch gives the bits of its own mode."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from glesam_runtime import (
    BundleError,
    GleSamMaskGenerator,
    GleSamPredictor,
    InputError,
    console,
    load_embedding,
    manifest_file,
    open_bundle,
)
from glesam_runtime.cli import app
from glesam_runtime.enhancement_gate import (
    CHANNELS,
    EnhancementGate,
    GateTraining,
)
from glesam_runtime.enhancing import channel_moments, estimate_gain
from glesam_runtime.image import Geometry

BOX = [10, 10, 50, 50]
GREATEST = 1e9
"""A threshold that no estimate exceeds."""


@pytest.fixture
def gated(toy_copy: Path) -> Callable[..., Path]:
    """Return a function that gives the toy bundle a gate of random weights."""

    def make(threshold: float = 0.0, **changes: Any) -> Path:
        bundle = open_bundle(toy_copy)
        weights = np.random.default_rng(0).normal(size=2 * CHANNELS)
        fields = {
            "encoder": bundle.stage_sha256("encoder"),
            "enhancer": bundle.stage_sha256("enhancer"),
            "features": "channel_moments",
            "weights": tuple(map(float, weights)),
            "bias": 0.25,
            "threshold": threshold,
            "target": "iou",
            "training": GateTraining("scenes:2", 2, 8, ("clear", "LQ-1"), 0, 0.5, 0.75, ()),
        }
        gate = EnhancementGate(**{**fields, **changes})
        made = msgspec.structs.replace(bundle.manifest, enhancement_gate=gate)
        (toy_copy / "manifest.json").write_bytes(manifest_file.dump(made))
        return toy_copy

    return make


def set_photo(bundle: Path, photo: np.ndarray, **how: Any) -> GleSamPredictor:
    predictor = GleSamPredictor(bundle, backend="onnxruntime", **how)
    predictor.set_image(photo)
    return predictor


def document_of(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    return found


def write_document(bundle: Path, document: dict[str, Any]) -> None:
    (bundle / "manifest.json").write_text(json.dumps(document), encoding="utf-8")


@pytest.mark.parametrize("threshold", [-GREATEST, GREATEST])
def test_auto_gives_the_bits_of_the_branch_that_it_takes(
    threshold: float, gated: Callable[..., Path], photo: np.ndarray
) -> None:
    bundle = gated(threshold)
    auto = set_photo(bundle, photo)
    helps = threshold < 0
    assert (auto.enhanced, auto.enhancing.mode) == (helps, "auto")
    assert ("enhancer" in auto.timings, "gate" in auto.timings) == (helps, True)
    branch, other = (set_photo(bundle, photo, enhance=mode) for mode in (helps, not helps))
    assert (branch.enhanced, branch.estimate, other.enhanced) == (helps, None, not helps)
    pairs = zip(auto.predict(box=BOX), branch.predict(box=BOX), strict=True)
    assert all(mine.tobytes() == own.tobytes() for mine, own in pairs)
    mine, same, another = (each.get_image_embedding() for each in (auto, branch, other))
    assert mine.tobytes() == same.tobytes() != another.tobytes()


def test_the_threshold_is_exclusive(gated: Callable[..., Path], photo: np.ndarray) -> None:
    estimate = set_photo(gated(), photo).estimate
    assert estimate is not None
    assert set_photo(gated(estimate), photo).enhanced is False
    assert set_photo(gated(float(np.nextafter(estimate, -math.inf))), photo).enhanced is True


def test_modes_without_a_gate(toy_bundle: Path, photo: np.ndarray) -> None:
    always = set_photo(toy_bundle, photo)
    assert (always.enhancing.mode, always.enhanced, always.estimate) == (True, True, None)
    with pytest.raises(InputError, match=r"has no gate to enhance by; learn one with 'glesam-cal"):
        GleSamPredictor(toy_bundle, enhance="auto")
    with pytest.raises(InputError, match=r"enhance='sometimes': must be True, False, \"auto\""):
        GleSamPredictor(toy_bundle, enhance="sometimes")  # type: ignore[arg-type]
    always.reset_image()
    assert (always.enhanced, always.estimate) == (None, None)


@pytest.mark.parametrize("side", [4, 16, 24, 40, 64])
def test_features_are_means_and_deviations_of_what_the_image_covers(
    side: int, gated: Callable[..., Path]
) -> None:
    z_l = np.random.default_rng(side).normal(1, 2, (1, CHANNELS, side, side)).astype(np.float32)
    height, width = 16 * side, 16 * side * 3 // 4 - 5
    geometry = Geometry(16 * side, (height, width), (height, width))
    step = {4: 1, 16: 1, 24: 2, 40: 3, 64: 4}[side]
    covered = z_l[0, :, ::step, : math.ceil(width / 16) : step].astype(np.float64)
    want = [*covered.mean(axis=(1, 2)), *covered.std(axis=(1, 2))]
    np.testing.assert_allclose(channel_moments(z_l, geometry), want, rtol=1e-13, atol=1e-14)
    gate = open_bundle(gated()).manifest.enhancement_gate
    assert isinstance(gate, EnhancementGate)
    exact = math.fsum(w * f for w, f in zip(gate.weights, want, strict=True)) + gate.bias
    assert estimate_gain(gate, z_l, geometry) == pytest.approx(exact, rel=1e-11)


def test_padding_does_not_change_an_estimate(gated: Callable[..., Path]) -> None:
    gate = open_bundle(gated()).manifest.enhancement_gate
    assert isinstance(gate, EnhancementGate)
    z_l = np.random.default_rng(1).normal(size=(1, CHANNELS, 4, 4)).astype(np.float32)
    geometry = Geometry(64, (64, 33), (128, 66))
    padded = z_l.copy()
    padded[..., 3:] = np.nan
    assert estimate_gain(gate, padded, geometry) == estimate_gain(gate, z_l, geometry)
    padded[..., 2] = np.nan
    assert math.isnan(estimate_gain(gate, padded, geometry))


@pytest.mark.parametrize("stage", ["encoder", "enhancer"])
def test_a_gate_of_another_bundle_is_refused_where_it_would_decide(
    stage: str, gated: Callable[..., Path], photo: np.ndarray
) -> None:
    bundle = gated(**{stage: "0" * 64})
    for mode in (None, "auto"):
        with pytest.raises(BundleError) as caught:
            GleSamPredictor(bundle, enhance=mode)
        assert str(caught.value).startswith(f"{bundle}: its enhancement gate was learned for anoth")
        assert f"another {stage} (000000000000 instead of " in str(caught.value)
        assert "\n" not in str(caught.value)
    assert set_photo(bundle, photo, enhance=True).enhanced is True


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("weights", [0.5] * 511, "length >= 512"),
        ("weights", [0.5] * 513, "length <= 512"),
        ("weights", [None] * 512, r"Expected `float`, got `null`"),
        ("bias", math.nan, "not a bundle manifest"),
        ("threshold", math.inf, "not a bundle manifest"),
        ("threshold", 1e300, "<= 1000000000000.0"),
        ("features", "deep", "Invalid enum value 'deep'"),
        ("target", "speed", "Invalid enum value 'speed'"),
        ("encoder", "12", "matching regex"),
    ],
)
def test_a_malformed_gate_is_refused_in_one_line(
    field: str, value: Any, message: str, gated: Callable[..., Path]
) -> None:
    import jsonschema

    bundle = gated()
    document = document_of(bundle)
    jsonschema.validate(document, manifest_file.json_schema())
    document["enhancement_gate"][field] = value
    write_document(bundle, document)
    with pytest.raises(BundleError, match=message) as caught:
        open_bundle(bundle)
    assert "\n" not in str(caught.value)
    if value is not math.nan and value is not math.inf:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, manifest_file.json_schema())


def test_a_manifest_with_a_gate_is_written_as_it_was_read(gated: Callable[..., Path]) -> None:
    raw = (gated() / "manifest.json").read_bytes()
    parsed = manifest_file.parse(raw, "here")
    assert manifest_file.dump(parsed) == raw
    assert parsed.requires is msgspec.UNSET


def test_an_embedding_keeps_the_decision(
    gated: Callable[..., Path], photo: np.ndarray, tmp_path: Path
) -> None:
    bundle = gated(-GREATEST)
    auto = set_photo(bundle, photo)
    auto.get_embedding().save(tmp_path / "photo.safetensors")
    embedding = load_embedding(tmp_path / "photo.safetensors")
    assert (embedding.enhanced, embedding.estimate) == (True, auto.estimate)
    other = GleSamPredictor(bundle, backend="onnxruntime")
    for kept, want in ((embedding, True), (replace(embedding, enhanced=False), False)):
        other.set_embedding(kept)
        assert (other.enhanced, other.estimate) == (want, auto.estimate)
    always = GleSamPredictor(bundle, backend="onnxruntime", enhance=True)
    always.set_embedding(embedding)
    never = GleSamPredictor(bundle, backend="onnxruntime", enhance=False)
    with pytest.raises(InputError, match="computed with enhance=True"):
        never.set_embedding(embedding)
    shared = auto.share()
    assert (shared.enhancing.mode, shared.enhanced) == ("auto", None)


def test_each_image_is_decided_for_by_itself(gated: Callable[..., Path], photo: np.ndarray) -> None:
    images = [photo, photo // 8, 255 - photo]
    bundle = gated()
    estimates = [set_photo(bundle, image).estimate for image in images]
    assert None not in estimates
    middle = sorted(estimates)[1]  # type: ignore[type-var]
    predictor = GleSamPredictor(gated(middle), backend="onnxruntime")
    predictor.set_image_batch(images)
    decided = [each.enhanced for each in predictor._images]
    assert decided == [estimate > middle for estimate in estimates]  # type: ignore[operator]
    assert sum(decided) == 1
    assert predictor.enhanced == decided[-1]
    boxes = predictor.predict_batch(box_batch=[BOX] * 3)[0]
    for image, enhanced, masks in zip(images, decided, boxes, strict=True):
        alone = set_photo(bundle, image, enhance=enhanced)
        np.testing.assert_array_equal(alone.predict(box=BOX)[0], masks)
    GleSamMaskGenerator(predictor, points_per_side=2).generate(photo)


def test_glesam_run_says_what_was_decided(
    gated: Callable[..., Path],
    photo: np.ndarray,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    bundle = gated(GREATEST)
    estimate = set_photo(bundle, photo).estimate
    assert estimate is not None

    def run(*words: str) -> tuple[int, str, str]:
        base = [str(path), "--bundle", str(bundle), "--json", "--no-files"]
        code = console.exit_code_of(app, "glesam-run", [*base, *words])
        return code, *capsys.readouterr()

    prompts = ("--box", "10,10,50,50")
    for words, mode, enhanced in (
        ((), "auto", False),
        (("--enhance", "auto"), "auto", False),
        (("--enhance", "always"), True, True),
        (("--enhance", "never"), False, False),
        (("--no-enhance",), False, False),
        (("--no-enhance", "--enhance", "never"), False, False),
    ):
        code, out, err = run(*prompts, *words)
        assert code == 0, err
        document = json.loads(out)
        (image,) = document["images"]
        assert (document["enhance"], image["enhanced"]) == (mode, enhanced)
        asked = round(estimate, 6) if mode == "auto" else None
        assert image.get("estimate") == asked
        assert ("enhancer" in image["seconds"]) == enhanced
    code, out, err = run("--everything", "--points-per-side", "2")
    (image,) = json.loads(out)["images"]
    assert (image["enhanced"], image["estimate"]) == (False, round(estimate, 6))
    code, out, err = run(*prompts, "--no-enhance", "--enhance", "auto")
    assert (code, out) == (2, "")
    assert err == "error: --no-enhance contradicts --enhance auto; leave out one of them\n"
    bundle = gated(encoder="0" * 64)
    code, out, err = run(*prompts)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "was learned for another encoder" in err
