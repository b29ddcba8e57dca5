"""Compare blur kernels with their definitions, and Gaussians with SciPy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from glesam_evaluation.degrade import Blur
from glesam_evaluation.degrade.kernels import blur_kernel, gaussian_kernel, sinc_kernel

sizes = st.sampled_from((7, 9, 11, 13, 15, 17, 19, 21))
sigmas = st.floats(0.2, 3)
angles = st.floats(0, math.pi)
shaped = st.builds(
    Blur,
    kind=st.sampled_from(("gaussian", "generalized", "plateau")),
    size=sizes,
    sigma_x=sigmas,
    sigma_y=sigmas,
    angle=angles,
    beta=st.floats(0.5, 4),
)
sincs = st.builds(Blur, kind=st.just("sinc"), size=sizes, cutoff=st.floats(math.pi / 3, math.pi))


@given(blur=shaped | sincs)
def test_every_kernel_sums_to_one_and_is_point_symmetric(blur: Blur) -> None:
    kernel = blur_kernel(blur)
    assert kernel.shape == (blur.size, blur.size)
    assert kernel.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-15)
    assert np.unravel_index(kernel.argmax(), kernel.shape) == (blur.size // 2, blur.size // 2)


@given(blur=shaped)
def test_only_sinc_is_negative_anywhere(blur: Blur) -> None:
    assert blur_kernel(blur).min() >= 0
    assert sinc_kernel(21, math.pi / 2).min() < 0


@given(size=sizes, sigma=sigmas, angle=angles)
def test_isotropic_kernels_look_the_same_from_every_side(
    size: int, sigma: float, angle: float
) -> None:
    kernel = gaussian_kernel(size, sigma, sigma, angle)
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)
    np.testing.assert_allclose(kernel, kernel[:, ::-1], atol=1e-12)


@given(size=sizes, sigma_x=sigmas, sigma_y=sigmas)
def test_a_gaussian_is_scipys(size: int, sigma_x: float, sigma_y: float) -> None:
    impulse = np.zeros((size, size))
    impulse[size // 2, size // 2] = 1
    expected = ndimage.gaussian_filter(
        impulse, (sigma_y, sigma_x), radius=size // 2, mode="constant"
    )
    np.testing.assert_allclose(gaussian_kernel(size, sigma_x, sigma_y), expected, atol=1e-12)


def test_the_angle_turns_the_first_axis() -> None:
    level, upright = gaussian_kernel(15, 3, 0.5), gaussian_kernel(15, 3, 0.5, math.pi / 2)
    assert level[7, 10] > level[10, 7]
    np.testing.assert_allclose(upright, level.T, atol=1e-12)


def test_beta_flattens_the_top_and_cuts_the_tails() -> None:
    pointed, gaussian, flat = (gaussian_kernel(21, 2, 2, beta=beta) for beta in (0.5, 1, 4))
    assert pointed[10, 19] > gaussian[10, 19] > flat[10, 19]
    assert flat[10, 11] / flat[10, 10] > gaussian[10, 11] / gaussian[10, 10]


def test_sinc_passes_below_its_cutoff_and_stops_above() -> None:
    cutoff = math.pi / 2
    spectrum = np.abs(np.fft.fft2(sinc_kernel(21, cutoff), s=(64, 64)))
    frequency = np.abs(np.fft.fftfreq(64)) * 2 * math.pi
    assert spectrum[0, frequency < 0.6 * cutoff].min() > 0.8
    assert spectrum[0, frequency > 1.4 * cutoff].max() < 0.2
