"""Test LQSeg: it is deterministic, keeps the size of an image, and its levels are in order."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glesam_evaluation.degrade import (
    SINGLE,
    UNSEEN,
    VISIBILITY,
    Blur,
    Jpeg,
    Noise,
    Pass,
    Recipe,
    Resize,
    apply,
    apply_recipe,
    degrade,
    degrade_single,
    sample_recipe,
)
from glesam_evaluation.degrade.apply import jpeg
from glesam_evaluation.scenes import make_scene
from glesam_runtime.errors import InputError


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene(1, 96, 128).image


def test_same_seed_same_bytes_other_seed_other_bytes(image: np.ndarray) -> None:
    before = image.copy()
    first, again, other = (degrade(image, 2, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(image, before)


def test_a_recipe_alone_decides_every_pixel(image: np.ndarray) -> None:
    np.testing.assert_array_equal(apply_recipe(image, sample_recipe(3, 11)), degrade(image, 3, 11))


CHANGES: dict[str, Callable[[Recipe], Recipe]] = {
    "no blur": lambda r: replace(r, second=replace(r.second, blur=None)),
    "another blur": lambda r: replace(r, first=replace(r.first, blur=Blur("sinc", 9, cutoff=1.2))),
    "another resize": lambda r: replace(r, first=replace(r.first, resize=Resize("area", 0.9))),
    "another second resize": lambda r: replace(
        r, second=replace(r.second, resize=Resize("area", 1))
    ),
    "other noise": lambda r: replace(r, first=replace(r.first, noise=GRAIN)),
    "other second noise": lambda r: replace(r, second=replace(r.second, noise=GRAIN)),
    "another JPEG": lambda r: replace(r, first=replace(r.first, jpeg=Jpeg(31))),
    "another second JPEG": lambda r: replace(r, second=replace(r.second, jpeg=Jpeg(31))),
    "another last resize": lambda r: replace(r, final="bilinear"),
    "another rate": lambda r: replace(r, rate=4),
}
GRAIN = Noise("gaussian", 20.0, gray=True, seed=1)
BLUR = Blur("gaussian", 7, 1.0, 1.0, 0.0, 1.0)
ONE = Pass(BLUR, Resize("bicubic", 0.7), Noise("poisson", 1.0, gray=False, seed=0), Jpeg(80))


@pytest.mark.parametrize("change", CHANGES)
def test_every_step_of_a_recipe_reaches_the_image(image: np.ndarray, change: str) -> None:
    recipe = Recipe(level=2, rate=2, first=ONE, second=ONE, final="area")
    other = CHANGES[change](recipe)
    assert (apply_recipe(image, recipe) != apply_recipe(image, other)).any()


def test_the_second_jpeg_is_written_at_the_levels_size(
    image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def watched(pixels: np.ndarray, quality: int) -> np.ndarray:
        sizes.append(pixels.shape[:2])
        return jpeg(pixels, quality)

    monkeypatch.setattr(apply, "jpeg", watched)
    recipe = Recipe(level=3, rate=4, first=ONE, second=ONE, final="area")
    assert apply_recipe(image, recipe).shape == image.shape  # 96 x 128
    assert sizes == [(67, 90), (24, 32)]


def test_another_process_makes_the_same_bytes() -> None:
    script = (
        "import hashlib\n"
        "from glesam_evaluation.degrade import degrade\n"
        "from glesam_evaluation.scenes import make_scene\n"
        "image = make_scene(1, 96, 128).image\n"
        "print(hashlib.sha256(degrade(image, 2, 7).tobytes()).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    here = degrade(make_scene(1, 96, 128).image, 2, 7)
    assert done.stdout.strip() == hashlib.sha256(here.tobytes()).hexdigest()


def test_the_whole_package_works_without_torch_and_onnx() -> None:
    script = (
        "import sys\n"
        "sys.modules.update(torch=None, onnx=None, onnxruntime=None)\n"
        "import glesam_evaluation.degrade_cli, glesam_evaluation.degrade\n"
        "import glesam_evaluation.scenes\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_any_memory_layout_will_do(image: np.ndarray) -> None:
    mirrored = image[::-1, ::-1]
    np.testing.assert_array_equal(degrade(mirrored, 1, 3), degrade(mirrored.copy(), 1, 3))
    mirrored.flags.writeable = False
    degrade_single(mirrored, "haze")


@settings(max_examples=40)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    level=st.sampled_from((1, 2, 3)),
    seed=st.integers(0, 1000),
)
def test_size_and_type_are_kept_down_to_one_pixel(
    height: int, width: int, level: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    low = degrade(image, level, seed)
    assert low.shape == image.shape
    assert low.dtype == np.uint8
    kind = list(SINGLE)[seed % len(SINGLE)]
    assert degrade_single(image, kind, 1.0, seed).shape == image.shape


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_images_without_content_work(value: int, level: int) -> None:
    image = np.full((33, 17, 3), value, dtype=np.uint8)
    for seed in range(10):
        low = degrade(image, level, seed)
        # Two rounds of zero-mean noise, clipped at the ends: gray stays gray on average.
        assert abs(float(low.mean()) - value) < 30


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def test_levels_are_in_order_on_average() -> None:
    """Compare after a median filter, because plain PSNR would measure little but the noise."""
    images = [make_scene(seed, 256, 256).image for seed in range(6)]
    fidelity = np.array(
        [
            [psnr(image, cv2.medianBlur(degrade(image, level, seed), 5)) for level in (1, 2, 3)]
            for image in images
            for seed in range(12)
        ]
    )
    first, second, third = fidelity.mean(axis=0)
    assert first > second + 0.3
    assert second > third + 0.3


def test_no_level_is_the_clear_image(image: np.ndarray) -> None:
    for level in (1, 2, 3):
        assert psnr(image, degrade(image, level, 0)) < 40


@pytest.mark.parametrize("kind", [kind for kind in SINGLE if kind not in UNSEEN])
def test_single_degradations_worsen_with_severity(image: np.ndarray, kind: str) -> None:
    quality = [psnr(image, degrade_single(image, kind, s, seed=3)) for s in (0.25, 0.5, 1.0)]
    assert quality == sorted(quality, reverse=True)
    one, again, other = (degrade_single(image, kind, 0.5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() == (kind not in ("blur", "jpeg"))


@pytest.mark.parametrize("kind", VISIBILITY)
def test_unseen_degradations_of_severity_zero_change_nothing(image: np.ndarray, kind: str) -> None:
    np.testing.assert_array_equal(degrade_single(image, kind, 0.0), image)


def test_the_unseen_do_what_they_are_called(image: np.ndarray) -> None:
    hazy, dull, dark = (degrade_single(image, kind, 0.8, 1).astype(float) for kind in VISIBILITY)
    assert hazy.mean() > image.mean() + 30
    assert hazy[:20].std() < hazy[-20:].std()  # far at the top, near at the bottom
    assert dull.std() == pytest.approx(image.std() * (1 - 0.9 * 0.8), rel=0.05)
    assert dark.mean() < image.mean() / 2


@pytest.mark.parametrize(
    ("kind", "severity", "seed"),
    [
        ("smog", 0.5, 0),
        ("haze", -0.1, 0),
        ("haze", 1.1, 0),
        ("haze", float("nan"), 0),
        ("haze", 0.5, -1),
    ],
)
def test_bad_single_degradations_are_refused(
    image: np.ndarray, kind: str, severity: float, seed: int
) -> None:
    with pytest.raises(InputError):
        degrade_single(image, kind, severity, seed)
