"""Test single steps: noise statistics, JPEG against Pillow, filters against SciPy."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from glesam_evaluation.degrade import Noise
from glesam_evaluation.degrade import apply as steps
from glesam_evaluation.degrade.kernels import gaussian_kernel
from glesam_evaluation.scenes import make_scene
from glesam_runtime.errors import InputError


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_scene(5, 120, 160).image


def flat(value: float, size: int = 300) -> np.ndarray:
    return np.full((size, size, 3), value, dtype=np.float32)


def test_eight_bits_survive_the_way_through_floats() -> None:
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    np.testing.assert_array_equal(steps.to_uint8(steps.to_float(values)), values)


def test_blur_is_scipys_gaussian_filter(image: np.ndarray) -> None:
    pixels = steps.to_float(image)
    expected = ndimage.gaussian_filter(pixels, (1.7, 1.7, 0), radius=(10, 10, 0), mode="reflect")
    blurred = steps.blur(pixels, gaussian_kernel(21, 1.7, 1.7))
    np.testing.assert_allclose(blurred, expected, atol=1e-5)


def test_area_halving_averages_fours(image: np.ndarray) -> None:
    pixels = steps.to_float(image)
    expected = pixels.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(steps.resize(pixels, 60, 80, "area"), expected, atol=1e-6)


@pytest.mark.parametrize("quality", [30, 60, 95])
def test_jpeg_is_pillows(image: np.ndarray, quality: int) -> None:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    expected = np.asarray(Image.open(file)).astype(int)
    ours = steps.to_uint8(steps.jpeg(steps.to_float(image), quality)).astype(int)
    # The same tables and chroma sampling; the two libraries may round a transform differently.
    assert np.abs(ours - expected).mean() < 0.5


@pytest.mark.parametrize("sigma", [1.0, 10.0, 30.0])
def test_gaussian_noise_has_its_sigma(sigma: float) -> None:
    noisy = steps.add_noise(flat(0.5), Noise("gaussian", sigma, gray=False, seed=1)) * 255
    assert noisy.mean() == pytest.approx(127.5, abs=0.3)
    assert noisy.std() == pytest.approx(sigma, rel=0.02)


@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0])
@pytest.mark.parametrize("value", [0.25, 0.5])
def test_poisson_noise_grows_with_the_root_of_the_light(scale: float, value: float) -> None:
    noisy = steps.add_noise(flat(value), Noise("poisson", scale, gray=False, seed=2))
    assert noisy.mean() == pytest.approx(value, abs=0.004)
    assert noisy.std() == pytest.approx(scale * np.sqrt(value / 255), rel=0.03)


def test_black_has_no_shot_noise() -> None:
    assert not steps.add_noise(flat(0), Noise("poisson", 3.0, gray=False, seed=3)).any()


@pytest.mark.parametrize("kind", ["gaussian", "poisson"])
def test_gray_noise_is_one_value_for_three_channels(kind: str) -> None:
    gray, coloured = (
        steps.add_noise(flat(0.5), Noise(kind, 2.0, gray=g, seed=4)) for g in (True, False)
    )
    assert np.ptp(gray, axis=2).max() < 1e-6
    assert np.corrcoef(coloured[..., 0].ravel(), coloured[..., 1].ravel())[0, 1] < 0.02


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, steps.MAX_SIDE + 1, 3), np.uint8),
        [[1, 2, 3]],
    ],
)
def test_anything_but_uint8_rgb_is_refused_in_one_line(bad: object) -> None:
    with pytest.raises(InputError, match="image") as error:
        steps.check_image(bad)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
