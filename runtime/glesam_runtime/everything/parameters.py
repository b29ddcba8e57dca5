"""Declare each parameter of everything-mode once: its name, default, range and help text.

`GleSamMaskGenerator` takes them as arguments and `glesam-run --everything` as options.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, get_args

from glesam_runtime.errors import InputError
from glesam_runtime.expected_work import ExpectedWork
from glesam_runtime.option_groups import flag, help_of, option

# No numpy here: the command line reads the parameters for its --help.
if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from glesam_runtime.manifest import EverythingThresholds, Manifest

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]

_PANEL = "Everything"

_DEFAULT_THRESHOLDS = {
    "pred_iou_thresh": 0.88,
    "stability_score_thresh": 0.95,
    "stability_score_offset": 1.0,
}
"""segment_anything's thresholds, for bundles that say no others."""
_OPTIONAL = ("points_per_side", *_DEFAULT_THRESHOLDS)
"""The numbers that may be None."""


def _number(
    default: float | None,
    low: float,
    high: float,
    help_text: str,
    *,
    whole: bool = False,
    shown: str | None = None,
) -> Any:
    """Declare a number: its default, its range, and whether it is a count.

    `shown` is what --help shows as the default, if that depends on more than this number.
    """
    spelled = f"{help_text} Default: {shown or format(default, '.3g')}."
    metadata = {"range": (low, high, whole), **option(spelled, panel=_PANEL, show_default=False)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Parameters:
    """The parameters of a search: how densely to search an image and which masks to keep.

    Names, defaults and meaning are those of segment_anything's SamAutomaticMaskGenerator. The help
    text of each field says what it does. For a threshold that is None,
    `thresholds` returns the one to use.

    Attributes:
        point_grids: replaces `points_per_side`: for each crop layer an array [N, 2] of points
            (x, y), from 0 to 1 of a crop's width and height.
        output_mode: form of `segmentation`: a bool array [H, W], its run lengths, or COCO's
            compressed RLE.

    Raises:
        InputError: a value is outside its range, not exactly one of points_per_side and point_grids
            is given, or a crop layer has no points.
    """

    points_per_side: int | None = _number(
        32, 1, math.inf, "Points along each side of the grid over the image.", whole=True
    )
    points_per_batch: int = _number(
        64,
        1,
        math.inf,
        "Maximum number of points per decoder call; the memory of the decoder grows with it.",
        whole=True,
        shown="8 on a CPU, else 64",
    )
    pred_iou_thresh: float | None = _number(
        None,
        0,
        1,
        "Keep masks whose predicted IoU is greater; 0 keeps all.",
        shown="the bundle's, or 0.88",
    )
    stability_score_thresh: float | None = _number(
        None,
        0,
        1,
        "Keep masks whose stability score is at least this; 0 keeps all.",
        shown="the bundle's, or 0.95",
    )
    stability_score_offset: float | None = _number(
        None,
        0,
        math.inf,
        "Offset in logits of the stability score: area above threshold + offset, divided by area "
        "above threshold - offset.",
        shown="the bundle's, or 1",
    )
    box_nms_thresh: float = _number(
        0.7,
        0,
        1,
        "IoU of two masks' boxes above which the mask of lower predicted IoU is dropped as a "
        "duplicate.",
    )
    crop_n_layers: int = _number(
        0,
        0,
        math.inf,
        "Number of crop layers, which find small objects. Layer n searches 4^n overlapping crops "
        "of the image.",
        whole=True,
    )
    crop_nms_thresh: float = _number(
        0.7,
        0,
        1,
        "IoU of the boxes of two masks from different crops above which the mask from the larger "
        "crop is dropped as a duplicate.",
    )
    crop_overlap_ratio: float = _number(
        512 / 1500,
        0,
        1,
        "Overlap of the crops in layer 1, as a share of the image's shorter side; each further "
        "layer halves it.",
    )
    crop_n_points_downscale_factor: int = _number(
        1,
        1,
        math.inf,
        "Each crop layer has this many times fewer points per side than the layer before.",
        whole=True,
    )
    point_grids: Sequence[ArrayLike] | None = None
    min_mask_region_area: int = _number(
        0, 0, math.inf, "Fill holes and remove islands of fewer pixels; 0 leaves masks unchanged."
    )
    output_mode: OutputMode = "binary_mask"

    def __post_init__(self) -> None:
        if (self.points_per_side is None) == (self.point_grids is None):
            raise InputError(
                "points_per_side and point_grids: exactly one is needed; set points_per_side=None "
                "to use point_grids"
            )
        for each in numbers():
            value = getattr(self, each.name)
            if value is not None or each.name not in _OPTIONAL:
                _check_number(each.name, value, *each.metadata["range"])
        if self.crop_overlap_ratio == 1:
            raise InputError("crop_overlap_ratio 1: must be less; at 1 all crops are the same")
        if self.output_mode not in get_args(OutputMode):
            known = ", ".join(get_args(OutputMode))
            raise InputError(f"output_mode {self.output_mode!r} is not known; known are {known}")
        # Imported here: the command line reads the options without NumPy.
        from glesam_runtime.everything.grids import layer_grids

        # A layer without points is reported now, not at the first image.
        layer_grids(
            self.points_per_side,
            self.point_grids,
            self.crop_n_layers,
            self.crop_n_points_downscale_factor,
        )

    def work_on(self, images: int) -> ExpectedWork:
        """Return the work of a search on a number of images: each crop is encoded."""
        from glesam_runtime.everything.grids import layer_grids

        grids = layer_grids(
            self.points_per_side,
            self.point_grids,
            self.crop_n_layers,
            self.crop_n_points_downscale_factor,
        )
        crops = [4**layer for layer in range(len(grids))]
        points = sum(count * len(grid) for count, grid in zip(crops, grids, strict=True))
        return ExpectedWork(images * sum(crops), images * points)


def thresholds(manifest: Manifest, parameters: Parameters) -> EverythingThresholds:
    """Return the thresholds of the parameters; for None the bundle's, or segment_anything's."""
    from glesam_runtime.manifest import EverythingThresholds

    own = manifest.everything or None
    wanted = {name: getattr(parameters, name) for name in _DEFAULT_THRESHOLDS}
    return EverythingThresholds(
        **{
            name: getattr(own, name, _DEFAULT_THRESHOLDS[name]) if value is None else value
            for name, value in wanted.items()
        }
    )


def numbers() -> list[dataclasses.Field[Any]]:
    """Return the parameters that are numbers, which are the ones with a command-line option."""
    return [each for each in dataclasses.fields(Parameters) if "range" in each.metadata]


def _check_number(name: str, value: object, low: float, high: float, whole: bool) -> None:
    """Refuse a value that is not finite, is outside [low, high], or is not whole but must be."""
    try:
        number = float(value) if isinstance(value, Real) else math.nan
    except OverflowError:  # a whole number of more than 308 digits
        number = math.inf
    if not (math.isfinite(number) and low <= number <= high) or (whole and number % 1):
        kind = "a whole number" if whole else "a number"
        bounds = f"of {low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise InputError(f"{name} {value}: {kind} {bounds} is needed")


@dataclass(eq=False, repr=False)  # the generated methods would cost start-up time
class _EverythingFlags:
    everything: bool = field(
        default=False,
        metadata=option("Segment every object, without prompts.", panel=_PANEL),
    )
    mask_files: bool = field(
        default=False,
        metadata=option(
            "Also write each mask to a file, <stem>_mask_0.png and so on.", panel=_PANEL
        ),
    )

    @property
    def prompt_batch(self) -> int | None:
        """Return the value of --points-per-batch, or None if it is not given."""
        batch: int | None = vars(self)["points_per_batch"]
        return batch

    def parameters(self) -> Parameters | None:
        """Return the parameters given on the command line, None without `--everything`.

        Raises:
            InputError: a value is outside its range, or an option is given without `--everything`.
        """
        values = {each.name: getattr(self, each.name) for each in numbers()}
        given = {name: value for name, value in values.items() if value is not None}
        if not self.everything:
            alone = [*given, *(["mask_files"] if self.mask_files else [])]
            if alone:
                raise InputError(
                    f"{flag(alone[0])} requires --everything: add it, or leave out {flag(alone[0])}"
                )
            return None
        try:
            return Parameters(**given)
        except InputError as error:  # its message has the names of the Python parameters
            text = re.sub(r"\b[a-z]+(_[a-z]+)+\b", lambda name: flag(name[0]), str(error))
            raise InputError(text) from error


def _as_options() -> list[tuple[str, Any, Any]]:
    """Make an option of each number; its value is None if the user did not give the option."""
    kinds = {
        "int | None": int | None,
        "int": int | None,
        "float": float | None,
        "float | None": float | None,
    }
    return [
        (
            each.name,
            kinds[str(each.type)],
            field(
                default=None,
                metadata=option(help_of(each), panel=_PANEL, show_default=False),
            ),
        )
        for each in numbers()
    ]


if TYPE_CHECKING:
    EverythingOptions = _EverythingFlags
else:
    EverythingOptions = dataclasses.make_dataclass(
        "EverythingOptions", _as_options(), bases=(_EverythingFlags,), eq=False, repr=False
    )
    EverythingOptions.__doc__ = "The options of `glesam-run --everything`, one field each."
