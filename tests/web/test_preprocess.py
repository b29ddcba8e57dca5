"""The page's library preprocesses with the bits of Pillow, and with those of the Python runtime."""

from __future__ import annotations

import msgspec
import numpy as np
import torch
from PIL import Image
from PIL.Image import Resampling
from torch.nn import functional

from glesam_runtime.image import preprocess, resized_size
from glesam_runtime.manifest import FirstResize, Preprocessing

from .conftest import Cases

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
SIZES = [(1, 1), (1, 5000), (5000, 1), (2, 3000), (3000, 2), (64, 64), (64, 31), (900, 1600)]
ROUNDING = 3e-6
"""The tolerance for normalised float values: torch computes with 0 to 1, we with 0 to 255."""


def images() -> list[np.ndarray]:
    """Return noise, which shows every wrong weight, of many sizes; uint8 [H, W, 3]."""
    rng = np.random.default_rng(0)
    sizes = [*SIZES, *rng.integers(1, 500, (32, 2)).tolist()]
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def normalised(values: np.ndarray, size: int) -> np.ndarray:
    """Return pixels [h, w, 3] as the encoder's input [3, S, S]; SAM's own arithmetic in torch."""
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (MEAN, STD))
    tensor = (torch.tensor(values).permute(2, 0, 1) - mean) / std
    height, width = values.shape[:2]
    return functional.pad(tensor, (0, size - width, 0, size - height)).numpy()


def pillow(image: np.ndarray, height: int, width: int, kernel: Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), kernel))


def run(cases: Cases, rules: Preprocessing, every: list[np.ndarray]) -> list[np.ndarray]:
    for image in every:
        cases.add("preprocess", image, rules=msgspec.to_builtins(rules))
    shape = (3, rules.image_size, rules.image_size)
    return [np.asarray(made).reshape(shape) for made in cases.run()]


def test_fixed_point_is_pillows(cases: Cases) -> None:
    rules = Preprocessing(64, "longest_side", "pillow_bilinear", "RGB", MEAN, STD, "right_bottom")
    every = images()
    for image, made in zip(every, run(cases, rules, every), strict=True):
        size = resized_size(*image.shape[:2], 64)
        np.testing.assert_array_equal(made, preprocess(image, rules).tensor[0])
        np.testing.assert_array_equal(
            made, normalised(pillow(image, *size, Resampling.BILINEAR), 64)
        )


def test_float_is_torchs(cases: Cases) -> None:
    rules = Preprocessing(64, "square", "float_bilinear", "RGB", MEAN, STD, "none")
    every = images()
    for image, made in zip(every, run(cases, rules, every), strict=True):
        np.testing.assert_array_equal(made, preprocess(image, rules).tensor[0])
        exact = torch.tensor(image / 255.0).permute(2, 0, 1)[None]
        wide = functional.interpolate(exact, (64, 64), mode="bilinear", antialias=True)[0] * 255
        expected = normalised(wide.permute(1, 2, 0).numpy(), 64)
        np.testing.assert_allclose(made, expected, rtol=0, atol=ROUNDING)


def test_first_resize_is_pillows_bicubic(cases: Cases) -> None:
    first = FirstResize(32, "pillow_bicubic")
    rules = Preprocessing(64, "square", "float_bilinear", "RGB", MEAN, STD, "none", first)
    every = images()
    for image, made in zip(every, run(cases, rules, every), strict=True):
        np.testing.assert_array_equal(made, preprocess(image, rules).tensor[0])
        small = torch.tensor(pillow(image, 32, 32, Resampling.BICUBIC) / 255.0)
        large = functional.interpolate(
            small.permute(2, 0, 1)[None], (64, 64), mode="bilinear", antialias=True
        )[0]
        expected = normalised(large.permute(1, 2, 0).numpy() * 255, 64)
        np.testing.assert_allclose(made, expected, rtol=0, atol=2 * ROUNDING)


def test_alpha_is_ignored(cases: Cases) -> None:
    """A canvas returns RGBA; its colours give the same bits as RGB."""
    rules = Preprocessing(64, "longest_side", "pillow_bilinear", "RGB", MEAN, STD, "right_bottom")
    every = images()[4:12]
    rng = np.random.default_rng(1)
    alpha = [rng.integers(0, 256, (*image.shape[:2], 1), np.uint8) for image in every]
    four = [np.concatenate(pair, axis=2) for pair in zip(every, alpha, strict=True)]
    for image, made in zip(every, run(cases, rules, four), strict=True):
        np.testing.assert_array_equal(made, preprocess(image, rules).tensor[0])


def test_an_image_that_cannot_be_used_is_refused(cases: Cases) -> None:
    rules = Preprocessing(64, "longest_side", "pillow_bilinear", "RGB", MEAN, STD, "right_bottom")
    cases.add("preprocess", np.zeros((4, 4, 2), np.uint8), rules=msgspec.to_builtins(rules))
    cases.add("preprocess", np.zeros((4, 4, 3), np.float32), rules=msgspec.to_builtins(rules))
    for result in cases.run():
        assert result["error"] == "InputError"
        assert "Uint8Array of RGB or RGBA for 4 x 4 pixels" in result["message"]
