"""Options of `glesam-run --everything`: names and meaning of segment_anything's amg.py.

They have no defaults of their own, so that one given without --everything can be refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from glesam_runtime.everything.parameters import Parameters

_PANEL = "Everything"


def _option(name: str, text: str) -> Any:
    return typer.Option(f"--{name}", help=text, rich_help_panel=_PANEL, show_default=False)


Everything = Annotated[
    bool,
    _option("everything", "Segment everything: instead of prompts, a grid of points."),
]
PointsPerSide = Annotated[
    int | None, _option("points-per-side", "Points a side of the grid; default 32.")
]
PointsPerBatch = Annotated[
    int | None, _option("points-per-batch", "Points a decoder call; default 8 on a CPU, else 64.")
]
PredIouThresh = Annotated[
    float | None,
    _option("pred-iou-thresh", "Keep masks of a greater predicted IoU; default 0.88."),
]
StabilityScoreThresh = Annotated[
    float | None,
    _option("stability-score-thresh", "Keep masks at least this stable; default 0.95."),
]
StabilityScoreOffset = Annotated[
    float | None,
    _option("stability-score-offset", "Logits either side of the threshold; default 1."),
]
BoxNmsThresh = Annotated[
    float | None,
    _option("box-nms-thresh", "Box IoU above which two masks are one; default 0.7."),
]
CropNLayers = Annotated[
    int | None,
    _option("crop-n-layers", "Look again at 4 crops, 16 crops and so on; default 0."),
]
CropNmsThresh = Annotated[
    float | None,
    _option("crop-nms-thresh", "--box-nms-thresh between crops; default 0.7."),
]
CropOverlapRatio = Annotated[
    float | None,
    _option("crop-overlap-ratio", "Overlap of crops, of the shorter side; default 0.34."),
]
CropNPointsDownscaleFactor = Annotated[
    int | None,
    _option("crop-n-points-downscale-factor", "Fewer points a side, layer by layer; default 1."),
]
MinMaskRegionArea = Annotated[
    int | None,
    _option("min-mask-region-area", "Fill holes and drop islands of fewer pixels; default 0."),
]
MaskFiles = Annotated[
    bool, _option("mask-files", "Also write each mask, as <stem>_mask_0.png and so on.")
]

_NAMES = (
    "points_per_side",
    "points_per_batch",
    "pred_iou_thresh",
    "stability_score_thresh",
    "stability_score_offset",
    "box_nms_thresh",
    "crop_n_layers",
    "crop_nms_thresh",
    "crop_overlap_ratio",
    "crop_n_points_downscale_factor",
    "min_mask_region_area",
)


def parameters_of(options: Mapping[str, Any]) -> Parameters | None:
    """What the command line says of `--everything`; None where it is not asked for.

    Args:
        options: all of a command's, by parameter name.

    Raises:
        InputError: a value outside its range, or an option given without `--everything`.
    """
    given = {name: options[name] for name in _NAMES if options[name] is not None}
    if not options["everything"]:
        alone = [*given, *(["mask_files"] if options["mask_files"] else [])]
        if alone:
            raise InputError(
                f"{_spell(alone[0])} belongs to --everything: add it, or leave this out"
            )
        return None
    from glesam_runtime.everything.parameters import Parameters

    try:
        return Parameters(**given)
    except InputError as error:  # it has the names of Python
        text = re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda name: _spell(name[0]), str(error))
        raise InputError(text) from error


def _spell(name: str) -> str:
    return "--" + name.replace("_", "-")
