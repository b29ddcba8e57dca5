"""The float resize agrees with torchvision, and SAM 2's preprocessing with the sam2 package."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glesam_runtime.image import preprocess
from glesam_runtime.manifest import Preprocessing
from glesam_runtime.resample import resize_bilinear

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ROUNDING = 3e-6
"""The tolerance for normalised values: torch computes with 0 to 1, we with 0 to 255, in float32."""


def rules(size: int) -> Preprocessing:
    return Preprocessing(size, "square", "float_bilinear", "RGB", MEAN, STD, "none")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def transforms() -> dict[int, torch.nn.Module]:
    """Return sam2's own preprocessing for two sizes of model."""
    from sam2.utils.transforms import SAM2Transforms

    return {size: SAM2Transforms(size, mask_threshold=0.0) for size in (64, 256)}


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    size=st.sampled_from([64, 256]),
    seed=st.integers(0, 9),
)
def test_preprocess_is_sam2s(
    height: int, width: int, size: int, seed: int, transforms: dict[int, torch.nn.Module]
) -> None:
    image = noise(height, width, seed)
    made = preprocess(image, rules(size))
    assert made.geometry.resized == (size, size)
    assert made.geometry.original == (height, width)
    assert made.tensor.dtype == np.float32
    expected = transforms[size](image).numpy()[None]
    np.testing.assert_allclose(made.tensor, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("height", "width"), [(1, 20000), (3000, 2), (2500, 3700)])
def test_slivers_and_large_images(
    height: int, width: int, transforms: dict[int, torch.nn.Module]
) -> None:
    image = noise(height, width)
    made = preprocess(image, rules(256)).tensor
    np.testing.assert_allclose(made[0], transforms[256](image).numpy(), rtol=0, atol=ROUNDING)


def test_the_same_size_is_the_same_image() -> None:
    image = noise(64, 96)
    np.testing.assert_array_equal(resize_bilinear(image, 64, 96), image.astype(np.float32))


def test_a_huge_image_needs_no_float_copy() -> None:
    image = noise(8, 8).repeat(800, axis=0).repeat(800, axis=1)
    tracemalloc.start()
    resize_bilinear(image, 64, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < image.nbytes / 2
