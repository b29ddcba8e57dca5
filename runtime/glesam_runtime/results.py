"""Define the JSON of glesam-run: what `--json` prints and what `--prompts` reads.

A mask of the results has the keys of a prompt, so results can be used as prompts again. The JSON
Schemas docs/results.schema.json and docs/prompts.schema.json are generated from these types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from glesam_runtime.manifest import PrecisionName, StageName

if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle

Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Point = tuple[float, float]


class Rle(msgspec.Struct, frozen=True):
    """A mask in COCO's compressed run-length encoding, as pycocotools reads it."""

    size: tuple[int, int]
    """Height and width of the image in pixels."""
    counts: str


class Mask(msgspec.Struct, frozen=True, kw_only=True):
    """A mask. As a prompt it asks for its box, and for its points if it has any."""

    id: Annotated[int, Meta(ge=1)]
    """1, 2, 3 and so on. With --everything it is the value in the instance map and the number on
    the overlay."""
    prompt: Count | UnsetType = UNSET
    """Index of its prompt. Absent with --everything."""
    points: tuple[Point, ...] | UnsetType = UNSET
    """The point of the grid that found it, (x, y) in pixels. Only with --everything."""
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1 in pixels; x1 and y1 are the first column and row behind the mask. Four zeros
    for an empty mask."""
    predicted_iou: float
    """The model's estimate of the mask's IoU with the object; about 0 to 1."""
    stability_score: Fraction
    area: Count
    """Number of pixels."""
    crop: tuple[int, int, int, int] | UnsetType = UNSET
    """x0, y0, x1, y1 of the crop or tile in which the mask was found. Only with --everything and
    --tile."""
    rle: Rle
    file: str | UnsetType = UNSET
    """The PNG file of the mask, if one was written."""


class ImageResult(msgspec.Struct, frozen=True, kw_only=True):
    """The masks of an image."""

    image: str
    """The path as it was found, or stdin."""
    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]
    note: str | UnsetType = UNSET
    """What may be wrong with the image."""
    enhanced: bool | UnsetType = UNSET
    """Whether the enhancer ran. With --everything it is said of the whole image; each crop is
    decided for by itself. Absent with --tile, where each tile is decided for by itself."""
    estimate: float | UnsetType = UNSET
    """What the bundle's gate estimated that the enhancer gains. Absent if no gate was asked."""
    masks: tuple[Mask, ...]
    """In the order of the prompts; with --everything the best first."""
    instances: str | UnsetType = UNSET
    """The instance map, if one was written."""
    colours: str | UnsetType = UNSET
    """A picture of the instance map, written if the map has 16 bits per pixel."""
    overlay: str | UnsetType = UNSET
    """The picture with the masks drawn over it, if one was written."""
    seconds: dict[str, Seconds]
    """Time of each step."""


def estimate_field(estimate: float | None) -> float | UnsetType:
    """Return the value of `ImageResult.estimate`."""
    return UNSET if estimate is None else round(estimate, 6)


class ImageError(msgspec.Struct, frozen=True, kw_only=True):
    """An image that failed. The others continue."""

    image: str
    error: str
    """What is wrong and what to do, in one line."""


class VideoMask(msgspec.Struct, frozen=True, kw_only=True):
    """An object in one frame of a video: a line of the JSON Lines that `--video` writes."""

    frame: Count
    """0, 1, 2 and so on."""
    time: float
    """Time of the frame in seconds, as the video says it."""
    id: Annotated[int, Meta(ge=1)]
    """1, 2, 3 and so on, in the order of the prompts."""
    lost: bool
    """Whether the object was not found. Box, area and rle are then those of an empty mask."""
    box: tuple[int, int, int, int]
    """As in Mask."""
    predicted_iou: float
    """As in Mask; of a lost object, that of the mask that was refused."""
    stability_score: Fraction
    """As predicted_iou."""
    area: Count
    """Number of pixels."""
    rle: Rle


class BundleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The bundle that ran."""

    path: str
    sha256: str
    """The hash of its manifest.json."""
    family: str
    preset: str
    unet: str
    trained: bool
    precision: dict[StageName, PrecisionName]
    repository: str | UnsetType = UNSET
    """The repository of the Hugging Face Hub, org/name. Absent for a folder."""
    revision: str | UnsetType = UNSET
    """The hash of the commit in that repository."""

    @classmethod
    def of(cls, bundle: Bundle) -> BundleInfo:
        """Describe an opened bundle."""
        model, snapshot = bundle.manifest.model, bundle.snapshot
        return cls(
            path=str(bundle.path),
            sha256=bundle.sha256,
            family=model.family,
            preset=model.preset,
            unet=model.unet,
            trained=model.trained,
            precision={name: stage.precision for name, stage in bundle.manifest.stages.items()},
            repository=UNSET if snapshot is None else snapshot.repository,
            revision=UNSET if snapshot is None else snapshot.revision,
        )


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """The document that `glesam-run --json` prints."""

    bundle: BundleInfo
    engine: dict[str, str | None]
    """Backend, device and versions; `reason` says why "auto" selected it, or is null."""
    enhance: bool | Literal["auto"]
    """true: every image was enhanced. false: none was. "auto": the bundle's gate chose; `enhanced`
    of each image says how, except with --tile."""
    timestep: int | UnsetType = UNSET
    """The timestep that the enhancer runs, for a bundle with several."""
    load_seconds: Seconds
    seconds: Seconds
    """Time for all images together, without loading."""
    images: tuple[Any, ...]
    """An ImageResult or an ImageError for each image, in the order of the images."""


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One object to segment: points, a box or both, in pixels of the image."""

    points: list[list[float]] = []
    """[x, y] or [x, y, label] each."""
    labels: list[float] | None = None
    """One for each point: 1 marks the object, 0 the background. The default is 1."""
    box: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1."""


def results_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the results."""
    _, parts = msgspec.json.schema_components(
        (Results, ImageResult, ImageError), ref_template="#/$defs/{name}"
    )
    parts["Results"]["properties"]["images"]["items"] = _either("ImageResult", "ImageError")
    return _document("#/$defs/Results", parts)


def prompts_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a prompts file."""
    _, parts = msgspec.json.schema_components((Prompt, Mask), ref_template="#/$defs/{name}")
    entries = {"type": "array", "minItems": 1, "items": _either("Prompt", "Mask")}
    parts["Prompts"] = {
        "title": "Prompts",
        "description": "An array of prompts, an object with such an array, or the results of one "
        "image.",
        "anyOf": [
            entries,
            {
                "type": "object",
                "required": ["prompts"],
                "additionalProperties": False,
                "properties": {"prompts": entries},
            },
            {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "minItems": 1,
                        "maxItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["masks"],
                            "properties": {"masks": entries},
                        },
                    }
                },
            },
        ],
    }
    point = parts["Prompt"]["properties"]["points"]["items"]
    point.update(minItems=2, maxItems=3)
    return _document("#/$defs/Prompts", parts)


def _either(*names: str) -> dict[str, Any]:
    return {"anyOf": [{"$ref": f"#/$defs/{name}"} for name in names]}


def _document(root: str, parts: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": root,
        "$defs": parts,
    }
