"""Test RobustSeg's degradations: their strength, their published parameters, and warped masks."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from glesam_evaluation.degrade import (
    SINGLE,
    UNSEEN,
    VISIBILITY,
    WARPS,
    Single,
    degrade_single,
    degrade_with_masks,
)
from glesam_evaluation.degrade.warp import Field, elastic_field, warp_image, warp_masks
from glesam_evaluation.scenes import make_scene
from glesam_runtime.errors import InputError

SEEDS = range(12)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene(1, 96, 128).image


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_the_kinds_are_those_that_robustsam_publishes() -> None:
    published = (
        "snow fog rain gauss_noise ISO_noise impulse_noise resampling_blur motion_blur zoom_blur "
        "color_jitter compression elastic_transform frosted_glass_blur brightness contrast"
    )
    assert list(UNSEEN) == published.lower().split()
    assert len(UNSEEN) == 15
    assert not set(UNSEEN) & set(VISIBILITY)


@pytest.mark.parametrize("kind", UNSEEN)
def test_strength_worsens_the_image_from_nothing_on(image: np.ndarray, kind: str) -> None:
    np.testing.assert_array_equal(degrade_single(image, kind, 0, 3), image)
    means = [
        np.mean([difference(degrade_single(image, kind, s, seed), image) for seed in SEEDS])
        for s in (0.25, 0.5, 0.75, 1.0)
    ]
    assert means == sorted(means)
    assert means[0] > 0.5
    assert means[-1] > 1.4 * means[0]


@pytest.mark.parametrize("kind", UNSEEN)
def test_a_seed_decides_every_pixel(image: np.ndarray, kind: str) -> None:
    before = image.copy()
    one, again, other = (degrade_single(image, kind, 1.0, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(image, before)
    assert (one != other).any() == (kind != "resampling_blur")


@pytest.mark.parametrize("kind", UNSEEN)
def test_any_size_works(kind: str) -> None:
    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 30), (40, 2), (5, 5)):
        image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        low = degrade_single(image, kind, 1.0, 3)
        assert (low.shape, low.dtype) == (image.shape, np.uint8)


def drawn(kind: str, value: int, seeds: range = range(200)) -> np.ndarray:
    """Return the mean that a degradation gives to a flat gray image, for each seed."""
    flat = np.full((8, 8, 3), value, np.uint8)
    return np.array([degrade_single(flat, kind, 1.0, seed).mean() for seed in seeds])


@pytest.mark.parametrize(
    ("kind", "value", "low", "high"),
    [
        ("brightness", 200, 0.6 * 200, 0.8 * 200),
        ("contrast", 158, 128 + 1.6 * 30, 128 + 1.7 * 30),
        ("impulse_noise", 100, 140, 150),
    ],
)
def test_factors_fill_the_published_range(kind: str, value: int, low: float, high: float) -> None:
    found = drawn(kind, value)
    assert low - 0.5 <= found.min() < low + 0.05 * (high - low) + 0.5
    assert high + 0.5 >= found.max() > high - 0.05 * (high - low) - 0.5


def test_gaussian_noise_has_the_published_variance() -> None:
    flat = np.full((300, 300, 3), 128, np.uint8)
    for seed in range(3):
        variance = (degrade_single(flat, "gauss_noise", 1.0, seed).astype(float) - 128).var()
        assert 245 < variance < 265  # 250 to 260, and 1/12 of rounding


def test_iso_noise_turns_hues_and_lifts_dark_pixels_by_the_published_amount() -> None:
    halves = np.zeros((200, 200, 3), np.uint8)
    halves[:100] = 102  # lightness 0.4 and 0: a deviation of 0.2
    for seed in range(4):
        noisy = degrade_single(halves, "iso_noise", 1.0, seed).astype(float)
        # A Poisson number of mean 255 * 0.2 * intensity, of which 1 - L is added.
        assert 0.7 * 51 - 1 < noisy[100:].mean() < 0.8 * 51 + 1
        assert noisy[100:].var() == pytest.approx(noisy[100:].mean(), rel=0.1)
        assert 0.6 * 0.7 * 51 - 1 < noisy[:100].mean() - 102 < 0.6 * 0.8 * 51 + 1
    red = np.zeros((100, 100, 3), np.uint8)
    red[..., 0] = 255
    hues = cv2.cvtColor(degrade_single(red, "iso_noise", 1.0, 0), cv2.COLOR_RGB2HSV)[..., 0]
    assert len(np.unique(hues)) > 100  # a deviation of 100 degrees and more


def test_resampling_is_two_bilinear_resizes(image: np.ndarray) -> None:
    small = cv2.resize(image, (32, 24))
    expected = cv2.resize(small, (128, 96)).astype(int)
    ours = degrade_single(image, "resampling_blur", 1.0, 0).astype(int)
    assert np.abs(ours - expected).max() <= 2  # 8 bits in between


def test_motion_blur_is_a_centred_line_of_at_most_35_pixels() -> None:
    dot = np.zeros((81, 81, 3), np.uint8)
    dot[40, 40] = 255
    longest = 0.0
    for seed in range(60):
        line = degrade_single(dot, "motion_blur", 1.0, seed)[..., 0].astype(float)
        assert line.sum() == pytest.approx(255, rel=0.25)  # rounded to 8 bits
        rows, columns = np.nonzero(line)
        centre = np.array(ndimage.center_of_mass(line))
        np.testing.assert_allclose(centre, 40, atol=0.6)
        longest = max(longest, np.ptp(rows), np.ptp(columns))
        spread = np.linalg.eigvalsh(np.cov(rows, columns))
        assert spread[0] < 0.6  # a line, whatever its direction
    assert 24 < longest <= 36


def test_zoom_blur_averages_enlargements() -> None:
    dot = np.zeros((101, 101, 3), np.uint8)
    dot[50, 20] = 255
    for seed in range(10):
        rng = np.random.default_rng(seed)
        factors = np.arange(1, rng.uniform(1, 1.33), rng.uniform(0.05, 0.07))
        blurred = degrade_single(dot, "zoom_blur", 1.0, seed)[50, :, 0].astype(float)
        reached = 50 - 30 * factors[-1]
        lit = np.flatnonzero(blurred > 2)
        assert lit.max() in (20, 21)
        assert lit.min() == pytest.approx(reached, abs=1.5)


def test_compression_is_pillows_jpeg_of_a_published_quality(image: np.ndarray) -> None:
    versions = []
    for quality in range(5, 11):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        versions.append(np.asarray(Image.open(file)))
    nearest = set()
    for seed in range(60):
        ours = degrade_single(image, "compression", 1.0, seed)
        distances = [difference(ours, version) for version in versions]
        assert min(distances) < 1
        nearest.add(int(np.argmin(distances)))
    assert nearest == set(range(6))


def test_frosted_glass_moves_pixels_by_up_to_three() -> None:
    rows = np.arange(40, dtype=np.uint8)
    image = np.stack(np.broadcast_arrays(rows[:, None], 2 * rows[None, :], 7), axis=-1)
    low = degrade_single(np.asarray(image, np.uint8), "frosted_glass_blur", 1.0, 0).astype(int)
    down, right = low[..., 0] - image[..., 0], (low[..., 1] - image[..., 1].astype(int)) // 2
    for moved in (down, right):
        assert set(np.unique(moved)) == set(range(-3, 4))
        inner = moved[3:-3, 3:-3]
        counts = np.bincount(inner.ravel() + 3)
        assert counts.min() > 0.7 * inner.size / 7


def test_color_jitter_is_pillows_for_one_factor_at_a_time(image: np.ndarray) -> None:
    from glesam_evaluation.degrade import robustseg

    class Drawn:
        """Random numbers that change one factor alone."""

        def __init__(self, number: int, value: float) -> None:
            self.values = [value if n == number else 0.0 for n in range(4)]

        def uniform(self, low: float, high: float) -> float:
            return self.values.pop(0)

        def permutation(self, count: int) -> range:
            return range(count)

    pixels = image.astype(np.float32) / 255
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for number, enhancer in enumerate(enhancers):
        for value in (-0.5, 0.3):
            ours = robustseg.color_jitter(pixels, 1.0, Drawn(number, value))  # type: ignore[arg-type]
            expected = np.asarray(enhancer(Image.fromarray(image)).enhance(1 + value))
            assert difference(255 * ours, expected) < 1
    turned = robustseg.color_jitter(pixels, 1.0, Drawn(3, 1 / 3))  # type: ignore[arg-type]
    np.testing.assert_allclose(turned, pixels[..., [2, 0, 1]], atol=0.02)


def test_weather_covers_the_view_as_its_name_says() -> None:
    dark = np.full((128, 160, 3), 40, np.uint8)
    snow, fog, rain = (
        np.stack([degrade_single(dark, kind, 1.0, seed) for seed in SEEDS]).astype(float)
        for kind in ("snow", "fog", "rain")
    )
    assert (snow >= 39).all()  # flakes are bright
    assert 0.02 < (snow > 200).mean() < 0.5
    assert 100 < fog.mean() < 230
    assert (fog.std(axis=(1, 2)) < 40).all()  # smooth
    assert 45 < rain.mean() < 120
    # Streaks of rain are long from top to bottom: neighbours below are more alike than beside.
    below, beside = (np.abs(np.diff(rain, axis=axis)).mean() for axis in (1, 2))
    assert below < 0.5 * beside


def test_masks_move_with_the_image_where_it_is_warped() -> None:
    scene = make_scene(7, 120, 150)
    yy, xx = np.mgrid[:120, :150]
    masks = np.stack([(yy - 60) ** 2 + (xx - 70) ** 2 < r * r for r in (12, 30)])
    marked = np.where(masks[1], 255, 0).astype(np.uint8)[..., None].repeat(3, axis=2)
    for seed in range(5):
        low, moved = degrade_with_masks(marked, masks, "elastic_transform", 1.0, seed)
        np.testing.assert_array_equal(low, degrade_single(marked, "elastic_transform", 1.0, seed))
        # The image shows its second mask, so the warped mask has to be what it shows afterwards.
        shown = low[..., 0] > 127
        disagree = np.count_nonzero(shown != moved[1])
        assert disagree < 0.15 * np.count_nonzero(ndimage.binary_dilation(shown) ^ shown)
        assert np.count_nonzero(masks[1] != moved[1]) > 4 * disagree + 20
        assert (moved[0] & ~moved[1]).sum() == 0  # inside stays inside
    for kind in set(SINGLE) - set(WARPS):
        _, same = degrade_with_masks(scene.image, masks, kind, 1.0, 0)
        assert same is masks
    assert degrade_with_masks(scene.image, masks, "elastic_transform", 0, 0)[1] is masks


def test_displacements_have_the_published_size() -> None:
    rng = np.random.default_rng(0)
    x, y = np.arange(200), np.arange(160)[:, None]
    fields = [elastic_field(160, 200, 1.0, rng) for _ in range(12)]
    smooth = []
    for field in fields:
        for part, place in ((field.x, x), (field.y, y)):
            shift = part - place
            # Take the affine part away by least squares.
            terms = np.stack([np.ones((160, 200)), *np.broadcast_arrays(x, y)], axis=-1).reshape(
                -1, 3
            )
            fitted, *_ = np.linalg.lstsq(terms, shift.ravel(), rcond=None)
            smooth.append(shift.ravel() - terms @ fitted)
    # Uniform noise of variance 1/3 after a Gaussian of sigma 10: 1/3 / (4 pi 10^2), times 100.
    expected = 100 * np.sqrt(1 / 3 / (4 * np.pi * 100))
    assert np.std(smooth) == pytest.approx(expected, rel=0.15)
    still = elastic_field(30, 40, 0.0, rng)
    np.testing.assert_allclose(still.x, np.broadcast_to(np.arange(40), (30, 40)), atol=1e-4)
    np.testing.assert_allclose(still.y, np.arange(30)[:, None].repeat(40, 1), atol=1e-4)


def test_a_field_is_scipys_map_coordinates() -> None:
    rng = np.random.default_rng(1)
    image = rng.random((40, 50, 3), dtype=np.float32)
    field = Field(
        x=np.float32(rng.uniform(0, 49, (40, 50))), y=np.float32(rng.uniform(0, 39, (40, 50)))
    )
    expected = np.stack(
        [ndimage.map_coordinates(image[..., c], [field.y, field.x], order=1) for c in range(3)],
        axis=-1,
    )
    np.testing.assert_allclose(warp_image(image, field), expected, atol=0.03)  # 1/32 of a pixel
    mask = np.zeros((1, 40, 50), np.bool_)
    mask[0, 10:30, 20:40] = True
    inside = (field.y > 10) & (field.y < 29) & (field.x > 20) & (field.x < 39)
    assert warp_masks(mask, field)[0][inside].all()


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: Single("sleet", 1.0, 0), "degradation 'sleet': must be one of snow, fog, rain"),
        (lambda: Single("fog", 1.1, 0), "strength 1.1"),
        (lambda: Single("fog", float("nan"), 0), "strength nan"),
        (
            lambda: degrade_with_masks(
                np.zeros((4, 4, 3), np.uint8), np.zeros((1, 4, 5), np.bool_), "fog", 1, 0
            ),
            r"\[1, 4, 5\]",
        ),
    ],
)
def test_bad_requests_are_one_line(call: object, hint: str) -> None:
    with pytest.raises(InputError, match=hint) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)
