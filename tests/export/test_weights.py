"""Options give the right checkpoint, and a wrong option is reported without loading torch."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from glesam_export import weights
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime.bundle import builtin_bundle_path
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import MANIFEST_FILE, Manifest

from .conftest import random_nano

NOTHING = WeightOptions(None, None, None, None, None, None, None, None, None)


@pytest.mark.parametrize("gamma", [0.0, -5.0, float("nan"), float("inf")])
def test_gamma_is_a_positive_number(gamma: float) -> None:
    with pytest.raises(InputError, match=r"--gamma .*positive"):
        make_checkpoint(replace(NOTHING, preset="nano", random_weights=0, gamma=gamma))


def test_random_weights_take_the_papers_gamma_and_timestep() -> None:
    given = replace(NOTHING, preset="nano", random_weights=3)
    found = make_checkpoint(given)
    assert (found.gamma, found.timestep, found.trained) == (5.0, 999, False)
    assert found.origin == "random, seed 3"
    found = make_checkpoint(replace(given, gamma=3.0, timestep=1))
    assert (found.gamma, found.timestep) == (3.0, 1)


@pytest.mark.parametrize("preset", ["nano", "nano2"])
def test_small_presets_bring_weights_along(preset: str) -> None:
    found = make_checkpoint(replace(NOTHING, preset=preset))
    assert (found.preset.name, found.unet.name, found.origin) == (preset, "nano", "built-in")
    assert found.trained
    (source,) = found.sources()
    assert (source.role, source.file) == ("packed", f"{preset}.safetensors")


def test_other_presets_bring_none() -> None:
    for preset in ("sam_vit_b", "sam_vit_l", "sam_vit_h", "sam2.1_hiera_t"):
        with pytest.raises(InputError, match=r"no weights .*--sam .*--random-weights"):
            make_checkpoint(replace(NOTHING, preset=preset))


@pytest.mark.parametrize("given", ["sam", "sd", "lora", "prompt_embeds"])
def test_one_file_needs_the_others(given: str) -> None:
    path: object = [Path("x")] if given == "lora" else Path("x")
    some = replace(NOTHING, preset="nano", gamma=5.0, timestep=1, **{given: path})
    with pytest.raises(InputError, match="missing beside --" + given.replace("_", "-")) as caught:
        make_checkpoint(some)
    for needed in {"sam", "sd", "lora"} - {given}:
        assert f"--{needed}" in str(caught.value)


@pytest.mark.parametrize("missing", ["gamma", "timestep"])
def test_files_need_gamma_and_timestep(missing: str) -> None:
    files = {"sam": Path("x"), "sd": Path("x"), "lora": [Path("x")]}
    whole = replace(NOTHING, preset="nano", gamma=5.0, timestep=1, **files)
    with pytest.raises(InputError, match="--gamma and --timestep must be given"):
        make_checkpoint(replace(whole, **{missing: None}))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a packed checkpoint of nano with gamma 3 and timestep 1."""
    from glesam_export.checkpoints.packed_file import pack

    path = tmp_path_factory.mktemp("packed") / "p.safetensors"
    pack(random_nano(gamma=3.0, timestep=1), path)
    return path


def test_a_checkpoint_brings_all_that_goes_with_it(packed: Path) -> None:
    found = make_checkpoint(replace(NOTHING, checkpoint=packed))
    assert (found.preset.name, found.unet.name, found.origin) == ("nano", "nano", "packed")
    assert (found.gamma, found.timestep, found.trained) == (3.0, 1, False)
    same = {"preset": "nano", "unet": "nano", "gamma": 3.0, "timestep": 1}
    assert make_checkpoint(replace(NOTHING, checkpoint=packed, **same)).gamma == 3.0


CONTRADICTIONS = {
    "preset": ("sam_vit_b", r"--preset sam_vit_b: .* is for nano; leave it out"),
    "unet": ("sd21", r"--unet sd21: .* is for nano"),
    "gamma": (77.5, r"--gamma 77.5: .* is for \d"),
    "timestep": (77, r"--timestep 77: .* is for 1"),
}


@pytest.mark.parametrize("option", CONTRADICTIONS)
def test_what_contradicts_a_checkpoint_is_named_with_both_values(option: str, packed: Path) -> None:
    given, words = CONTRADICTIONS[option]
    with pytest.raises(InputError, match=words) as caught:
        make_checkpoint(replace(NOTHING, checkpoint=packed, **{option: given}))
    assert str(packed) in str(caught.value)
    if option != "preset":
        with pytest.raises(InputError, match=words.replace("is for 1", r"is for \d")) as caught:
            make_checkpoint(replace(NOTHING, **{"preset": "nano", option: given}))
        assert "built-in" in str(caught.value)


def test_an_installation_without_built_in_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "weights.py"))
    with pytest.raises(InputError, match=r"no weights for nano .*--checkpoint"):
        make_checkpoint(replace(NOTHING, preset="nano"))


@pytest.mark.parametrize("other", ["random_weights", "sam", "sd", "lora", "prompt_embeds"])
def test_a_checkpoint_excludes_other_weights(other: str) -> None:
    with pytest.raises(InputError, match=f"--checkpoint and --{other.replace('_', '-')} exclude"):
        make_checkpoint(
            replace(NOTHING, checkpoint=Path("x"), **{other: [Path("x")] if other == "lora" else 0})
        )


@pytest.fixture
def manifest() -> Manifest:
    """Return the manifest of a bundle of built-in weights: nano, gamma 1, timestep 1."""
    raw = (builtin_bundle_path() / MANIFEST_FILE).read_bytes()
    found = msgspec.json.decode(raw, type=Manifest)
    return msgspec.structs.replace(
        found,
        model=msgspec.structs.replace(found.model, gamma=1.0, timestep=1),
        provenance=msgspec.structs.replace(found.provenance, weights=weights.BUILT_IN),
    )


def test_a_bundle_completes_the_options(manifest: Manifest) -> None:
    found = weights.for_bundle(replace(NOTHING, random_weights=0, gamma=1.0), manifest)
    completed = WeightOptions("nano", "nano", gamma=1.0, timestep=1, input="sam")
    assert found == replace(completed, random_weights=0)
    assert weights.for_bundle(NOTHING, manifest).random_weights is None
    found = weights.for_bundle(replace(NOTHING, checkpoint=Path("x")), manifest)
    assert found.checkpoint == Path("x")


def test_a_bundle_of_a_checkpoint_needs_it_again(manifest: Manifest) -> None:
    provenance = msgspec.structs.replace(manifest.provenance, weights="packed")
    made = msgspec.structs.replace(manifest, provenance=provenance)
    with pytest.raises(InputError, match=r"weights were packed; pass the same"):
        weights.for_bundle(NOTHING, made)
    assert weights.for_bundle(replace(NOTHING, checkpoint=Path("x")), made).gamma == 1.0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": "sam_vit_b"}, r"--preset sam_vit_b.*nano"),
        ({"unet": "sd21"}, r"--unet sd21.*nano"),
        ({"gamma": 3.0}, r"--gamma 3.*1"),
        ({"timestep": 999}, r"--timestep 999.*1"),
    ],
)
def test_what_contradicts_a_bundle_is_named_with_both_values(
    given: dict[str, object], words: str, manifest: Manifest
) -> None:
    with pytest.raises(InputError, match=words):
        weights.for_bundle(replace(NOTHING, **given), manifest)


@pytest.mark.parametrize(
    "arguments",
    [
        "--preset sam_vit_b",
        "--preset nano --fp16 --bf16",
        "--preset nano --batch x",
        "--checkpoint x --sam y",
        "--help",
    ],
)
def test_wrong_options_do_not_load_torch(arguments: str) -> None:
    program = f"""
import sys
from glesam_export.cli import app
from glesam_runtime.console import exit_code_of
exit_code_of(app, "glesam-export", "onnx -o nowhere {arguments}".split())
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
