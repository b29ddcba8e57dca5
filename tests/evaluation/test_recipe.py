"""Test recipes: values inside the paper's ranges, the stated shares, and JSON and back."""

import math
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glesam_evaluation.degrade import LQSEG, Blur, Pass, Recipe, sample_recipe
from glesam_runtime.errors import InputError

seeds = st.integers(0, 2**64)
levels = st.sampled_from((1, 2, 3))


def check_blur(blur: Blur) -> None:
    assert blur.size in (7, 9, 11, 13, 15, 17, 19, 21)
    if blur.kind == "sinc":
        assert math.pi / 3 <= blur.cutoff <= math.pi
        return
    assert 0.2 <= blur.sigma_x <= 3
    assert 0.2 <= blur.sigma_y <= 3
    assert 0 <= blur.angle < math.pi
    low, high = {"gaussian": (1, 1), "generalized": (0.5, 4), "plateau": (1, 2)}[blur.kind]
    assert low <= blur.beta <= high


def check_pass(one: Pass, smallest: float, largest: float) -> None:
    if one.blur is not None:
        check_blur(one.blur)
    assert one.resize.method in ("area", "bilinear", "bicubic")
    assert smallest <= one.resize.scale <= largest
    low, high = {"gaussian": (1, 30), "poisson": (0.05, 3)}[one.noise.kind]
    assert low <= one.noise.strength <= high
    assert 30 <= one.jpeg.quality <= 95


@given(level=levels, seed=seeds)
def test_every_recipe_stays_inside_the_papers_ranges(level: int, seed: int) -> None:
    recipe = sample_recipe(level, seed)
    assert recipe.level == level
    assert recipe.rate == (1, 2, 4)[level - 1]
    assert recipe.first.blur is not None
    check_pass(recipe.first, 0.15, 1.5)
    check_pass(recipe.second, 0.3, 1.2)
    assert recipe.final in ("area", "bilinear", "bicubic")


@given(seed=seeds)
def test_levels_of_one_seed_differ_in_their_rate_alone(seed: int) -> None:
    one, other = sample_recipe(1, seed), sample_recipe(3, seed)
    assert (one.first, one.second, one.final) == (other.first, other.second, other.final)


@given(level=levels, seed=seeds)
def test_a_recipe_survives_json(level: int, seed: int) -> None:
    recipe = sample_recipe(level, seed)
    assert msgspec.json.decode(msgspec.json.encode(recipe), type=Recipe) == recipe


def test_shares_are_the_papers() -> None:
    recipes = [sample_recipe(1, seed) for seed in range(4000)]
    passes = [one for recipe in recipes for one in (recipe.first, recipe.second)]
    blurs = [one.blur for one in passes if one.blur is not None]

    def share(hits: int, of: int, expected: float) -> None:
        # Five standard deviations of a binomial: the seeds are fixed, so this never flickers.
        assert abs(hits / of - expected) < 5 * math.sqrt(expected * (1 - expected) / of)

    kinds = Counter(blur.kind for blur in blurs)
    share(sum(recipe.second.blur is None for recipe in recipes), len(recipes), 0.2)
    share(kinds["sinc"], len(blurs), 0.1)
    share(kinds["generalized"], len(blurs), 0.9 * LQSEG.p_generalized)
    share(kinds["plateau"], len(blurs), 0.9 * LQSEG.p_plateau)
    share(sum(one.noise.kind == "poisson" for one in passes), len(passes), 0.5)
    share(sum(one.noise.gray for one in passes), len(passes), 0.4)
    for method in ("area", "bilinear", "bicubic"):
        share(sum(one.resize.method == method for one in passes), len(passes), 1 / 3)
    share(sum(recipe.first.resize.scale > 1 for recipe in recipes), len(recipes), 0.2)
    share(sum(recipe.first.resize.scale < 1 for recipe in recipes), len(recipes), 0.7)
    sizes = Counter(blur.size for blur in blurs)
    assert sorted(sizes) == list(LQSEG.kernel_sizes)


@pytest.mark.parametrize("level", [0, 4, -1, 1.5, "2", None, True])
def test_an_unknown_level_is_refused(level: object) -> None:
    with pytest.raises(InputError, match="level"):
        sample_recipe(level, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 0.5, "7", None])
def test_a_bad_seed_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="seed"):
        sample_recipe(1, seed)  # type: ignore[arg-type]
