"""Test the released recipes: their distributions against an oracle, and how they are applied."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import cv2
import msgspec
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from tests.evaluation.released_distributions import DISTRIBUTIONS, SHARES, largest_gap

from glesam_evaluation.degrade import (
    RECIPES,
    RELEASED,
    RELEASED_TEST,
    Blur,
    Jpeg,
    Noise,
    Pass,
    ReleasedRecipe,
    Resize,
    apply_recipe,
    degrade,
    recipe_settings,
    sample_recipe,
)
from glesam_evaluation.degrade import apply_released as steps
from glesam_evaluation.scenes import make_scene
from glesam_runtime.errors import InputError

DRAWS = 10_000


@pytest.fixture(scope="module")
def recipes() -> list[ReleasedRecipe]:
    return [sample_recipe(None, seed, RELEASED) for seed in range(DRAWS)]


def drawn(recipes: list[ReleasedRecipe]) -> dict[str, list[float]]:
    """Return the numbers that recipes hold, by the names of the oracle."""
    blurs = [r.first.blur for r in recipes if r.first.blur is not None]
    shaped = [b for b in blurs if b.kind != "sinc"]
    passes = {
        "first pass": [r.first for r in recipes],
        "second pass": [r.second for r in recipes],
    }
    found = {
        "kernel size": [b.size for b in blurs],
        "sigma, pixels": [b.sigma_x for b in shaped],
        "angle": [b.angle for b in shaped if b.sigma_x != b.sigma_y],
        "beta, generalized": [b.beta for b in shaped if b.kind == "generalized"],
        "beta, plateau": [b.beta for b in shaped if b.kind == "plateau"],
        "cutoff of sinc": [b.cutoff for b in blurs if b.kind == "sinc"],
        "rate": [r.rate for r in recipes],
        "last sinc, cutoff or 0": [r.last_sinc.cutoff if r.last_sinc else 0 for r in recipes],
    }
    for name, some in passes.items():
        noises = [one.noise for one in some]
        found |= {
            f"scale, {name}": [one.resize.scale for one in some],
            f"Gaussian noise, {name}": [n.strength for n in noises if n.kind == "gaussian"],
            f"Poisson noise, {name}": [n.strength for n in noises if n.kind == "poisson"],
            f"JPEG quality, {name}": [one.jpeg.quality for one in some],
        }
    return found


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_distributions_are_those_of_the_released_options(
    recipes: list[ReleasedRecipe], name: str
) -> None:
    values = drawn(recipes)[name]
    # 1.63 / sqrt(n) is the limit at 1 %, for kinds of kernel or noise that only some recipes have.
    limit = 0.02 if len(values) > 6000 else 1.63 / math.sqrt(len(values))
    assert largest_gap(values, DISTRIBUTIONS[name]) < limit


def test_the_shares_are_those_of_the_released_options(recipes: list[ReleasedRecipe]) -> None:
    blurs = [r.first.blur for r in recipes if r.first.blur is not None]
    passes = [one for r in recipes for one in (r.first, r.second)]
    kinds = Counter(b.kind + ", anisotropic" * (b.sigma_x != b.sigma_y) for b in blurs)
    assert len(blurs) == DRAWS  # the first blur is always there
    counts = {name: (count, DRAWS) for name, count in kinds.items()} | {
        "second blur": (sum(r.second.blur is not None for r in recipes), DRAWS),
        "Poisson": (sum(one.noise.kind == "poisson" for one in passes), len(passes)),
        "gray": (sum(one.noise.gray for one in passes), len(passes)),
        "JPEG last": (sum(r.jpeg_last for r in recipes), DRAWS),
    }
    assert set(counts) == set(SHARES)
    for name, (hits, total) in counts.items():
        share = SHARES[name]
        assert abs(hits / total - share) < 4 * math.sqrt(share * (1 - share) / total), name


def test_training_blurs_twice_with_the_first_kernel(recipes: list[ReleasedRecipe]) -> None:
    assert all(r.second.blur in (None, r.first.blur) for r in recipes)


def test_the_test_set_has_a_kernel_of_its_own_and_other_scales() -> None:
    recipes = [sample_recipe(None, seed, RELEASED_TEST) for seed in range(2000)]
    second = [r.second.blur for r in recipes if r.second.blur is not None]
    sigmas = [blur.sigma_x for blur in second if blur.kind != "sinc"]
    assert max(sigmas) < 1.5
    assert not any(r.second.blur == r.first.blur for r in recipes)
    assert {r.rate for r in recipes} == {2}
    assert all(r.sharpens and not r.squares_first for r in recipes)
    scales = np.array([r.first.resize.scale for r in recipes])
    assert scales.min() < 0.2
    assert np.mean(scales < 1) == pytest.approx(0.7, abs=0.03)


def test_a_seed_draws_the_same_at_every_level_and_survives_json() -> None:
    one, three = (sample_recipe(level, 5, RELEASED) for level in (1, 3))
    assert replace(three, level=1, rate=1) == one
    assert (three.level, three.rate) == (3, 4)
    assert msgspec.json.decode(msgspec.json.encode(one), type=ReleasedRecipe) == one


QUIET = Noise("gaussian", 0.0, gray=False, seed=0)
SHARP = Blur("gaussian", 7, 0.01, 0.01, 0.0, 1.0)
PLAIN = Pass(SHARP, Resize("area", 1.0), QUIET, Jpeg(100))
NOTHING = ReleasedRecipe(1, 1, PLAIN, PLAIN, "bilinear", None, True, False, True)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    gray = make_scene(1, 96, 129).image.mean(axis=2).astype(np.uint8)  # JPEG halves colours
    return gray[..., None].repeat(3, axis=2)


def changed(image: np.ndarray, recipe: ReleasedRecipe, **options: int) -> float:
    """Return the mean difference that a recipe makes, in levels of 255."""
    other = apply_recipe(image, recipe, **options).astype(float)
    return float(np.abs(other - image).mean())


def test_every_step_of_a_recipe_reaches_the_image(image: np.ndarray) -> None:
    assert changed(image, NOTHING) < 0.7  # two JPEGs of the best quality
    soft = Blur("gaussian", 15, 2.0, 2.0, 0.0, 1.0)
    steps_of = {
        "blur": replace(NOTHING, first=replace(PLAIN, blur=soft)),
        "second blur": replace(NOTHING, second=replace(PLAIN, blur=soft)),
        "noise": replace(NOTHING, first=replace(PLAIN, noise=replace(QUIET, strength=20.0))),
        "resize": replace(NOTHING, first=replace(PLAIN, resize=Resize("area", 0.5))),
        "rate": replace(NOTHING, rate=4),
        "JPEG": replace(NOTHING, second=replace(PLAIN, jpeg=Jpeg(30))),
        "last sinc": replace(NOTHING, last_sinc=Blur("sinc", 21, cutoff=math.pi / 3)),
    }
    for name, recipe in steps_of.items():
        assert changed(image, recipe) > 1.5, name


def test_the_last_jpeg_comes_at_the_size_the_order_says(
    image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    monkeypatch.setattr(steps, "jpeg", lambda p, q: (sizes.append(p.shape[:2]), p)[1])
    recipe = replace(NOTHING, rate=4, second=replace(PLAIN, resize=Resize("area", 0.9)))
    apply_recipe(image, replace(recipe, jpeg_last=True))
    apply_recipe(image, replace(recipe, jpeg_last=False))
    # Sizes are rounded down: 96 / 4 * 0.9 = 21.6 and 129 / 4 * 0.9 = 29.03.
    assert sizes == [(96, 129), (96, 129), (96, 129), (21, 29)]


def test_training_squares_first_and_the_test_set_last(image: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC))
    first = apply_recipe(image, NOTHING, side=64)
    assert np.abs(first.astype(float) - expected).mean() < 0.7
    last = apply_recipe(image, replace(NOTHING, squares_first=False), side=64)
    expected = cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR)
    assert np.abs(last.astype(float) - expected).mean() < 0.7
    assert apply_recipe(image, NOTHING).shape == image.shape


def test_sharpening_is_the_unsharp_mask_of_scipy() -> None:
    image = make_scene(3, 80, 90).image.astype(np.float32) / 255
    offsets = np.arange(-25, 26)
    kernel = np.exp(-(offsets**2) / (2 * 8.0**2))  # OpenCV's sigma of 51 pixels is 8
    kernel /= kernel.sum()

    def blurred(values: np.ndarray) -> np.ndarray:
        rows = ndimage.correlate1d(values.astype(np.float64), kernel, axis=0, mode="mirror")
        return ndimage.correlate1d(rows, kernel, axis=1, mode="mirror")

    detail = image - blurred(image)
    share = blurred(np.abs(detail) * 255 > 10)
    expected = share * np.clip(image + 0.5 * detail, 0, 1) + (1 - share) * image
    np.testing.assert_allclose(steps.sharpen(image), expected, atol=2e-3)
    assert np.abs(expected - image).max() > 0.05


def test_poisson_noise_counts_the_values_of_the_image() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 256, 1).repeat(256, 0).repeat(3, 2)
    many = steps.add_released_noise(ramp, Noise("poisson", 1.0, gray=False, seed=1))
    # 256 different values: a variance of v / 256.
    assert np.var(many[:, 128] - ramp[:, 128]) == pytest.approx(0.5 / 256, rel=0.15)
    halves = np.full((200, 200, 3), 0.25, np.float32)
    halves[:100] = 0.5
    few = steps.add_released_noise(halves, Noise("poisson", 0.3, gray=False, seed=1))
    # 2 different values: 2 photons at white, and a variance of 0.3^2 * v / 2, of which less is
    # left where values are clipped.
    assert np.std(few[:100]) == pytest.approx(0.3 * math.sqrt(0.5 / 2), rel=0.05)
    gray = steps.add_released_noise(ramp, Noise("poisson", 1.0, gray=True, seed=1))
    assert np.ptp(gray[:, 128] - ramp[:, 128], axis=1).max() < 1e-6


@pytest.mark.parametrize("name", ["released", "released-test"])
def test_any_size_works_and_a_seed_gives_the_same_bytes(name: str) -> None:
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 40), (9, 2), (31, 33)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for seed in range(4):
            low = degrade(image, None, seed, RECIPES[name])
            assert (low.shape, low.dtype) == (image.shape, np.uint8)
            np.testing.assert_array_equal(low, degrade(image, None, seed, RECIPES[name]))
            assert degrade(image, 3, seed, RECIPES[name], side=20).shape == (20, 20, 3)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: recipe_settings("real"), "paper, released, released-test"),
        (lambda: sample_recipe(4, 0, RELEASED), "level 4"),
        (lambda: sample_recipe(True, 0, RELEASED), "level True"),
        (lambda: sample_recipe(None, -1, RELEASED), "seed -1"),
        (lambda: sample_recipe(None, 0), "needs a level"),
        (lambda: apply_recipe(np.zeros((2, 2, 3), np.uint8), sample_recipe(1, 0), 512), "side 512"),
        (lambda: apply_recipe(np.zeros((2, 2, 3), np.uint8), NOTHING, 0), "side 0"),
    ],
)
def test_bad_requests_are_one_line(call: object, hint: str) -> None:
    with pytest.raises(InputError, match=hint) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)
