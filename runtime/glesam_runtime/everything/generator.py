"""Generate masks as segment_anything's SamAutomaticMaskGenerator does, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from glesam_runtime.everything.parameters import OutputMode, Parameters, thresholds
from glesam_runtime.everything.search import Found, find_masks
from glesam_runtime.rle import Rle, encode_runs, run_area, runs_to_mask

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from glesam_runtime.predictor import GleSamPredictor


class UncompressedRle(TypedDict):
    """A mask as COCO's uncompressed run lengths."""

    size: list[int]
    """Height, width."""
    counts: list[int]


class MaskRecord(TypedDict):
    """A mask and its description, with the keys of segment_anything's generator."""

    segmentation: NDArray[np.bool_] | UncompressedRle | Rle
    """The mask, in the form that `output_mode` names."""
    area: int
    """Number of pixels."""
    bbox: list[int]
    """x and y of the first pixel, last column - first column, last row - first row. The last two
    are one less than COCO's width and height, as in segment_anything."""
    predicted_iou: float
    point_coords: list[list[float]]
    """[[x, y]] of the prompt, in pixels of the image."""
    stability_score: float
    crop_box: list[int]
    """x, y, width, height of the crop in which the mask was found."""


@dataclass(frozen=True)
class _WithPredictor:
    predictor: GleSamPredictor


@dataclass(frozen=True, eq=False)
class GleSamMaskGenerator(Parameters, _WithPredictor):
    """Generate masks of everything in an image, from a grid of points.

    The generator replaces the predictor's image and then resets it. Neither is thread-safe.

    Args:
        predictor: the predictor to use, with or without the enhancer.

    The other arguments are those of `everything.parameters.Parameters`. Thresholds that are None
    are those that the bundle says, or else segment_anything's.

    Raises:
        InputError: a parameter is outside its range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        keep = thresholds(self.predictor.bundle.manifest, self)
        for name in keep.__struct_fields__:
            object.__setattr__(self, name, getattr(keep, name))

    def generate(self, image: NDArray[np.uint8]) -> list[MaskRecord]:
        """Return the masks of an image; the list is empty if none is good enough.

        Args:
            image: uint8 [H, W, 3], RGB.

        Raises:
            InputError: the array is not such an image, or it is too small for the crops.
            BusyError: another thread uses the predictor.
        """
        with self.predictor.reserved():
            found = find_masks(self.predictor, image, self)
        height, width = image.shape[:2]
        return [describe(one, height, width, self.output_mode) for one in found]


def describe(found: Found, height: int, width: int, mode: OutputMode) -> MaskRecord:
    """Return the record of a mask; height and width are the image's, in pixels."""
    x0, y0, x1, y1 = found.box
    left, top, right, bottom = found.crop.box
    return MaskRecord(
        segmentation=_segmentation(found, height, width, mode),
        area=run_area(found.runs),
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
