"""The released input gives what the released GleSAM code computes, by Pillow and torch.

That code makes a 512 x 512 picture with Pillow's bicubic filter, enlarges it to 1024 in float,
takes points in pixels of the picture, and stretches the logits straight to the image.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from PIL import Image
from torch.nn import functional

from glesam_runtime import BundleError, GleSamMaskGenerator, GleSamPredictor, manifest_file, masks
from glesam_runtime.image import geometry_of, preprocess
from glesam_runtime.manifest import (
    PROMPT_LABELS,
    Coordinates,
    FirstResize,
    Postprocessing,
    Preprocessing,
)
from glesam_runtime.prompts import check_prompts, prompt_tensors

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
COORDINATES = Coordinates("xy", "resized_pixels", 0.5, PROMPT_LABELS, "two_points")
ROUNDING = 5e-6
"""The tolerance for normalised values: the released code divides by 255 and multiplies again."""


def rules(size: int) -> Preprocessing:
    first = FirstResize(size // 2, "pillow_bicubic")
    return Preprocessing(size, "square", "float_bilinear", "RGB", MEAN, STD, "none", first)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def released(image: np.ndarray, size: int, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """Return the encoder's input of the released code: [1, 3, S, S]."""
    side = size // 2
    picture = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))
    tensor = torch.tensor(picture / 255.0, dtype=dtype).permute(2, 0, 1)[None] * 255.0
    large = functional.interpolate(tensor, (size, size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(v, dtype=dtype).view(-1, 1, 1) for v in (MEAN, STD))
    return ((large - mean) / std).numpy()


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    size=st.sampled_from([64, 256]),
    seed=st.integers(0, 9),
)
def test_preprocess_is_the_released_codes(height: int, width: int, size: int, seed: int) -> None:
    image = noise(height, width, seed)
    made = preprocess(image, rules(size))
    assert made.geometry.resized == (size, size)
    assert made.geometry.original == (height, width)
    assert made.tensor.dtype == np.float32
    np.testing.assert_allclose(made.tensor, released(image, size), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (900, 1600)])
def test_at_the_released_size(height: int, width: int) -> None:
    image = noise(height, width)
    made = preprocess(image, rules(1024)).tensor
    np.testing.assert_allclose(made, released(image, 1024, torch.float32), rtol=0, atol=ROUNDING)


def test_enlarging_to_twice_the_size_is_exact() -> None:
    """Bilinear weights are quarters there, so float64 and float32 agree to the last bit."""
    image = noise(300, 200)
    plain = replace(rules(256), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    picture = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BICUBIC))
    tensor = torch.tensor(picture).permute(2, 0, 1)[None].double()
    expected = functional.interpolate(tensor, (256, 256), mode="bilinear", align_corners=False)
    np.testing.assert_array_equal(preprocess(image, plain).tensor, expected.numpy())


@settings(deadline=None)
@given(height=st.integers(1, 6000), width=st.integers(1, 6000), data=st.data())
def test_points_and_boxes_are_pixels_of_the_picture(
    height: int, width: int, data: st.DataObject
) -> None:
    """A point goes to the 512 x 512 picture by scaling, and from there to S by 1024 / 512."""
    fraction = st.floats(0, 0.999)
    x, y = data.draw(fraction) * width, data.draw(fraction) * height
    box = np.asarray([x / 2, y / 2, (x + width) / 2, (y + height) / 2])
    geometry = geometry_of(height, width, 1024, rules(1024).resize)
    batch = check_prompts(geometry, [[[x, y]]], [[1]], [box])
    coords = prompt_tensors(batch, geometry, COORDINATES)["point_coords"][0]
    points = np.asarray([[x, y], box[:2], box[2:]])
    in_picture = points * (512 / np.asarray([width, height]))
    np.testing.assert_allclose(coords, in_picture * (1024 / 512), rtol=1e-6, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(height=st.integers(1, 400), width=st.integers(1, 400), seed=st.integers(0, 99))
def test_logits_are_stretched_straight_to_the_image(height: int, width: int, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 4, (2, 64, 64)).astype(np.float32)
    geometry = preprocess(noise(height, width), rules(256)).geometry
    how = Postprocessing("bilinear_direct", 0.0, 1.0, "first")
    tensor = torch.tensor(logits)[None].double()
    expected = functional.interpolate(tensor, (height, width), mode="bilinear")[0].numpy()
    made = masks.upscale(logits, geometry, how)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)
    clear = np.abs(expected) > 1e-5
    np.testing.assert_array_equal(
        masks.binarize(logits, geometry, how).masks[clear], expected[clear] > 0
    )


@pytest.fixture(scope="module")
def released_bundle(
    make_toy_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a toy bundle with the released input."""
    return make_toy_bundle(tmp_path_factory.mktemp("released") / "bundle", released=True)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (90, 120)])
def test_any_shape_gets_a_mask(height: int, width: int, released_bundle: Path) -> None:
    predictor = GleSamPredictor(released_bundle)
    predictor.set_image(noise(height, width))
    assert predictor.input_size == (64, 64)
    point = [[width // 2, height // 2]]
    found, _, low_res = predictor.predict(point, [1], multimask_output=False)
    assert found.shape == (1, height, width)
    expected = functional.interpolate(torch.tensor(low_res)[None], (height, width), mode="bilinear")
    clear = np.abs(expected[0].numpy()) > 1e-5
    np.testing.assert_array_equal(found[clear], expected[0].numpy()[clear] > 0)


def test_the_manifest_alone_decides(released_bundle: Path, toy_bundle: Path) -> None:
    """The same graphs get other tensors, and no argument of the predictor chooses between them."""
    image = noise(90, 120)
    encoded = []
    for bundle in (released_bundle, toy_bundle):
        predictor = GleSamPredictor(bundle)
        predictor.set_image(image)
        encoded.append(predictor.get_image_embedding())
    assert np.abs(encoded[0] - encoded[1]).max() > 0.1
    with pytest.raises(TypeError):
        GleSamPredictor(released_bundle, input="sam")  # type: ignore[call-arg]


def test_everything_with_crops(released_bundle: Path) -> None:
    """A crop is prepared as an image of its own, as SamAutomaticMaskGenerator prepares it."""
    image, predictor = noise(60, 90), GleSamPredictor(released_bundle)
    none = {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "crop_nms_thresh": 1.0}
    generator = GleSamMaskGenerator(predictor, points_per_side=3, crop_n_layers=1, **none)
    found = [each for each in generator.generate(image) if each["crop_box"] != [0, 0, 90, 60]]
    assert found
    for each in found[:5]:
        left, top, width, height = each["crop_box"]
        part = slice(top, top + height), slice(left, left + width)
        predictor.set_image(np.ascontiguousarray(image[part]))
        point = np.asarray(each["point_coords"]) - (left, top)
        candidates, _, _ = predictor.predict(point, [1])
        assert any(np.array_equal(each["segmentation"][part], mask) for mask in candidates)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("requires",), [], "'first_resize' needs 'released_input' in 'requires'"),
        (("preprocessing", "first_resize"), ..., "'released_input' needs a 'first_resize'"),
        (("preprocessing", "first_resize"), None, "first_resize"),
        (
            ("preprocessing", "first_resize", "size"),
            65,
            "first_resize 65 is larger than image_size",
        ),
        (("preprocessing", "first_resize", "size"), 0, "size"),
        (("preprocessing", "first_resize", "kernel"), "lanczos", "Invalid enum value 'lanczos'"),
    ],
)
def test_a_first_resize_that_contradicts_itself(
    place: tuple[str, ...], value: object, words: str, released_bundle: Path
) -> None:
    document = json.loads((released_bundle / "manifest.json").read_bytes())
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    with pytest.raises(BundleError, match=words):
        manifest_file.parse(json.dumps(document).encode(), "here")


def test_a_picture_that_keeps_its_aspect_is_refused(released_bundle: Path) -> None:
    document = json.loads((released_bundle / "manifest.json").read_bytes())
    document["preprocessing"] |= {"resize": "longest_side", "pad": "right_bottom"}
    with pytest.raises(BundleError, match="resize 'longest_side' contradicts 'first_resize'"):
        manifest_file.parse(json.dumps(document).encode(), "here")


def test_it_is_written_as_it_was_read(released_bundle: Path) -> None:
    parsed = manifest_file.parse((released_bundle / "manifest.json").read_bytes(), "here")
    assert parsed.requires == ("released_input",)
    assert manifest_file.parse(manifest_file.dump(parsed), "here") == parsed
