"""Every parameter outside its range gives a one-line error."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from segment_anything import SamAutomaticMaskGenerator

from glesam_runtime import GleSamMaskGenerator, GleSamPredictor, InputError, sample_image
from glesam_runtime.everything.parameters import (
    EverythingOptions,
    Parameters,
    numbers,
    thresholds,
)
from glesam_runtime.option_groups import help_of

THRESHOLDS = ("pred_iou_thresh", "stability_score_thresh", "stability_score_offset")
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "both": ({"point_grids": [[[0.5, 0.5]]]}, "exactly one is needed"),
    "neither": ({"points_per_side": None}, "exactly one is needed"),
    "no points": ({"points_per_side": 0}, "points_per_side 0: a whole number of 1 or more"),
    "half a point": ({"points_per_side": 2.5}, "a whole number of 1 or more"),
    "empty batches": ({"points_per_batch": 0}, "points_per_batch"),
    "IoU in percent": ({"pred_iou_thresh": 88}, "pred_iou_thresh 88: a number from 0 to 1"),
    "negative stability": ({"stability_score_thresh": -0.1}, "stability_score_thresh"),
    "negative offset": ({"stability_score_offset": -1}, "a number of 0 or more"),
    "NaN": ({"box_nms_thresh": math.nan}, "box_nms_thresh nan"),
    "infinite": ({"stability_score_offset": math.inf}, "stability_score_offset inf"),
    "text": ({"crop_nms_thresh": "0.7"}, "crop_nms_thresh 0.7"),
    "negative layers": ({"crop_n_layers": -1}, "crop_n_layers -1"),
    "all overlap": ({"crop_overlap_ratio": 1}, "crop_overlap_ratio 1: must be less"),
    "factor": ({"crop_n_points_downscale_factor": 0}, "crop_n_points_downscale_factor"),
    "negative area": ({"min_mask_region_area": -5}, "min_mask_region_area"),
    "mode": ({"output_mode": "png"}, "known are binary_mask, uncompressed_rle, coco_rle"),
    "a layer without points": (
        {"points_per_side": 3, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
        "3 points per side leave none in crop layer 2",
    ),
    "too few grids": (
        {"points_per_side": None, "point_grids": [[[0.5, 0.5]]], "crop_n_layers": 1},
        "1 given, but one for the image and one for each of 1 crop layers",
    ),
    "pixels": ({"points_per_side": None, "point_grids": [[[50, 50]]]}, "must lie from 0 to 1"),
    "shape": ({"points_per_side": None, "point_grids": [[0.5, 0.5]]}, r"\[N, 2\] is needed"),
    "empty": ({"points_per_side": None, "point_grids": [np.zeros((0, 2))]}, "N >= 1"),
    "ragged": ({"points_per_side": None, "point_grids": [[[1, 0], [1]]]}, "not an array"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_values(name: str) -> None:
    arguments, words = BAD[name]
    with pytest.raises(InputError, match=words):
        Parameters(**arguments)


def test_names_order_and_defaults_are_segment_anythings(toy_bundle: Path) -> None:
    """A bundle that says no thresholds has those of segment_anything."""
    generator = GleSamMaskGenerator(GleSamPredictor(toy_bundle))
    theirs = list(inspect.signature(SamAutomaticMaskGenerator).parameters.values())[1:]
    ours = list(inspect.signature(GleSamMaskGenerator).parameters.values())[1:]
    assert [each.name for each in ours] == [each.name for each in theirs]
    assert [getattr(generator, each.name) for each in ours] == [each.default for each in theirs]
    keep = thresholds(generator.predictor.bundle.manifest, Parameters())
    for name in THRESHOLDS:
        assert inspect.signature(GleSamMaskGenerator).parameters[name].default is None
        assert getattr(keep, name) == getattr(generator, name)


def test_a_bundle_says_thresholds_and_an_argument_wins() -> None:
    nano = GleSamPredictor()
    own = nano.bundle.manifest.everything
    assert own
    generator = GleSamMaskGenerator(nano)
    assert [getattr(generator, name) for name in THRESHOLDS] == [0.6, 0.8, 1.0]
    for name in THRESHOLDS:
        given = GleSamMaskGenerator(nano, **{name: 0.0})
        assert getattr(given, name) == 0
        assert all(getattr(given, each) == getattr(own, each) for each in {*THRESHOLDS} - {name})
        parameters = EverythingOptions(everything=True, **{name: 0.25}).parameters()
        assert parameters is not None
        assert getattr(thresholds(nano.bundle.manifest, parameters), name) == 0.25


def test_nano_finds_the_shapes_of_the_sample() -> None:
    """With segment_anything's thresholds it finds one of six."""
    found = GleSamMaskGenerator(GleSamPredictor(), points_per_side=12).generate(sample_image())
    assert len(found) >= 6


def test_every_number_is_an_option_that_is_left_out_by_default() -> None:
    options = {field.name: field for field in dataclasses.fields(EverythingOptions)}
    assert set(options) == {each.name for each in numbers()} | {"everything", "mask_files"}
    assert EverythingOptions(everything=True).parameters() == Parameters()
    for each in numbers():
        assert options[each.name].default is None
        assert help_of(options[each.name]) == help_of(each)
        low, high, _ = each.metadata["range"]
        assert each.default is None or low <= each.default <= high


def test_an_option_reaches_its_parameter() -> None:
    kinds = {each.name: type(1.0 if each.default is None else each.default) for each in numbers()}
    given = {name: kind(1) for name, kind in kinds.items()} | {"crop_overlap_ratio": 0.5}
    parameters = EverythingOptions(everything=True, **given).parameters()
    assert parameters == Parameters(**given)
    with pytest.raises(InputError, match="--box-nms-thresh 2: a number from 0 to 1 is needed"):
        EverythingOptions(everything=True, box_nms_thresh=2).parameters()
    with pytest.raises(InputError, match="--points-per-side requires --everything"):
        EverythingOptions(points_per_side=32).parameters()
