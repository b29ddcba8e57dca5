"""How densely to look and what to keep: segment_anything's parameters, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Literal, get_args

from glesam_runtime.errors import InputError
from glesam_runtime.everything.grids import even_grids, given_grids

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]


@dataclass(frozen=True)
class Parameters:
    """Names, defaults and meaning are those of segment_anything's SamAutomaticMaskGenerator.

    Raises:
        InputError: a value outside its range, not exactly one of points_per_side and point_grids,
            or a layer without points.
    """

    points_per_side: int | None = 32
    """The grid over the image has this many points a side; None where point_grids are given."""
    points_per_batch: int = 64
    """Points a decoder call; the decoder's memory grows with it."""
    pred_iou_thresh: float = 0.88
    """Keep masks whose predicted IoU is greater; 0 keeps all."""
    stability_score_thresh: float = 0.95
    """Keep masks at least this stable; 0 keeps all."""
    stability_score_offset: float = 1.0
    """Stability: area above threshold + offset over area above threshold - offset, in logits."""
    box_nms_thresh: float = 0.7
    """Of two masks whose boxes have a greater IoU, the one of lower predicted IoU goes."""
    crop_n_layers: int = 0
    """Layer n looks again at 4**n overlapping crops of the image, for small objects."""
    crop_nms_thresh: float = 0.7
    """The same for masks of different crops, where that of the larger crop goes."""
    crop_overlap_ratio: float = 512 / 1500
    """Overlap of the first layer's crops, of the image's shorter side; halved layer by layer."""
    crop_n_points_downscale_factor: int = 1
    """Points a side in layer n are points_per_side over this to the n-th power."""
    point_grids: Sequence[ArrayLike] | None = None
    """Instead of points_per_side, for each layer [N, 2]: (x, y) from 0 to 1 of a crop's size."""
    min_mask_region_area: int = 0
    """Fill holes and remove islands of fewer pixels; 0 leaves masks as they are."""
    output_mode: OutputMode = "binary_mask"
    """What `segmentation` is: a bool array [H, W], its runs, or COCO's compressed RLE."""

    def __post_init__(self) -> None:
        if (self.points_per_side is None) == (self.point_grids is None):
            raise InputError(
                "points_per_side and point_grids: exactly one is needed; "
                "points_per_side=None leaves the points to the grids"
            )
        for name, (low, high, whole) in _RANGES.items():
            value = getattr(self, name)
            if name != "points_per_side" or value is not None:
                _check_number(name, value, low, high, whole)
        if self.crop_overlap_ratio == 1:
            raise InputError("crop_overlap_ratio 1: must be less, or crops would all be one")
        if self.output_mode not in get_args(OutputMode):
            known = ", ".join(get_args(OutputMode))
            raise InputError(f"output_mode {self.output_mode!r} is not known; known are {known}")
        self.grids()  # a layer without points is told here, not at the first image

    def grids(self) -> list[NDArray[np.float64]]:
        """The points of each layer, [N, 2], (x, y) from 0 to 1 of a crop's width and height."""
        layers = self.crop_n_layers
        if self.point_grids is not None:
            return given_grids(self.point_grids, layers)
        assert self.points_per_side is not None  # exactly one of the two is given
        return even_grids(self.points_per_side, layers, self.crop_n_points_downscale_factor)


_RANGES: dict[str, tuple[float, float, bool]] = {
    "points_per_side": (1, math.inf, True),
    "points_per_batch": (1, math.inf, True),
    "pred_iou_thresh": (0, 1, False),
    "stability_score_thresh": (0, 1, False),
    "stability_score_offset": (0, math.inf, False),
    "box_nms_thresh": (0, 1, False),
    "crop_n_layers": (0, math.inf, True),
    "crop_nms_thresh": (0, 1, False),
    "crop_overlap_ratio": (0, 1, False),
    "crop_n_points_downscale_factor": (1, math.inf, True),
    "min_mask_region_area": (0, math.inf, False),
}
"""Of each number the least and the greatest value, and whether it is a count."""


def _check_number(name: str, value: object, low: float, high: float, whole: bool) -> None:
    """Finite, within [low, high], and whole where it counts something."""
    number = float(value) if isinstance(value, Real) else math.nan
    if not (math.isfinite(number) and low <= number <= high) or (whole and number % 1):
        kind = "a whole number" if whole else "a number"
        bounds = f"of {low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise InputError(f"{name} {value}: {kind} {bounds} is needed")
