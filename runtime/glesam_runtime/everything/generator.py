"""SamAutomaticMaskGenerator without torch: its parameters, its output dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from glesam_runtime.everything.parameters import OutputMode, Parameters
from glesam_runtime.everything.search import Found, find_masks
from glesam_runtime.rle import Rle, encode_runs
from glesam_runtime.runs import area_of, runs_to_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from glesam_runtime.predictor import GleSamPredictor


class UncompressedRle(TypedDict):
    """A mask's runs, as COCO's tools read them."""

    size: list[int]
    """Height, width."""
    counts: list[int]


class MaskRecord(TypedDict):
    """A mask and what there is to say about it, as segment_anything says it."""

    segmentation: NDArray[np.bool_] | UncompressedRle | Rle
    area: int
    """Pixels."""
    bbox: list[int]
    """x, y of the first pixel, then last column - first column, last row - first row: one less
    than COCO's width and height, since that is what SAM's generator has."""
    predicted_iou: float
    point_coords: list[list[float]]
    """[[x, y]] of the prompt."""
    stability_score: float
    crop_box: list[int]
    """x, y, width, height of the crop it was found in."""


class GleSamMaskGenerator:
    """Masks for everything in an image, from a grid of points.

    It uses its predictor, whose image it replaces and then forgets; neither is thread-safe.
    """

    def __init__(
        self,
        predictor: GleSamPredictor,
        points_per_side: int | None = Parameters.points_per_side,
        points_per_batch: int = Parameters.points_per_batch,
        pred_iou_thresh: float = Parameters.pred_iou_thresh,
        stability_score_thresh: float = Parameters.stability_score_thresh,
        stability_score_offset: float = Parameters.stability_score_offset,
        box_nms_thresh: float = Parameters.box_nms_thresh,
        crop_n_layers: int = Parameters.crop_n_layers,
        crop_nms_thresh: float = Parameters.crop_nms_thresh,
        crop_overlap_ratio: float = Parameters.crop_overlap_ratio,
        crop_n_points_downscale_factor: int = Parameters.crop_n_points_downscale_factor,
        point_grids: Sequence[ArrayLike] | None = Parameters.point_grids,
        min_mask_region_area: int = Parameters.min_mask_region_area,
        output_mode: OutputMode = Parameters.output_mode,
    ) -> None:
        """Take a predictor, with or without the enhancer, and segment_anything's parameters.

        `everything.parameters.Parameters` says what each does.

        Raises:
            InputError: a parameter outside its range.
        """
        self.predictor = predictor
        self.parameters = Parameters(
            points_per_side,
            points_per_batch,
            pred_iou_thresh,
            stability_score_thresh,
            stability_score_offset,
            box_nms_thresh,
            crop_n_layers,
            crop_nms_thresh,
            crop_overlap_ratio,
            crop_n_points_downscale_factor,
            point_grids,
            min_mask_region_area,
            output_mode,
        )

    def generate(self, image: NDArray[np.uint8]) -> list[MaskRecord]:
        """The masks of an image, an empty list where none is good enough.

        Args:
            image: uint8 [H, W, 3], RGB.

        Raises:
            InputError: not such an image, or one too small for the crops asked for.
        """
        found = find_masks(self.predictor, image, self.parameters)
        height, width = image.shape[:2]
        return [describe(one, height, width, self.parameters.output_mode) for one in found]


def describe(found: Found, height: int, width: int, mode: OutputMode) -> MaskRecord:
    """The record of a mask of an image of this size, in pixels."""
    x0, y0, x1, y1 = found.box
    left, top, right, bottom = found.crop.box
    return MaskRecord(
        segmentation=_segmentation(found, height, width, mode),
        area=area_of(found.runs),
        bbox=[x0, y0, x1 - x0, y1 - y0],
        predicted_iou=found.predicted_iou,
        point_coords=[list(found.point)],
        stability_score=found.stability,
        crop_box=[left, top, right - left, bottom - top],
    )


def _segmentation(
    found: Found, height: int, width: int, mode: OutputMode
) -> NDArray[np.bool_] | UncompressedRle | Rle:
    if mode == "binary_mask":
        return runs_to_mask(found.runs, height, width)
    if mode == "coco_rle":
        return encode_runs(found.runs, height, width)
    return UncompressedRle(size=[height, width], counts=found.runs.tolist())
