"""Define the JSON of the server: what a request may hold and what an answer holds.

The server, its client and the OpenAPI document use these types, so none has a list of its own.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Count = Annotated[int, Meta(ge=0)]
Seconds = dict[str, float]
Point = list[float]


class Rle(msgspec.Struct, frozen=True):
    """A mask in COCO's compressed run-length encoding, as pycocotools reads it."""

    size: tuple[int, int]
    """Height and width of the image in pixels."""
    counts: str


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One object to segment: points, a box, a mask or several of them, in pixels of the image."""

    points: list[Point] = []
    """[x, y] or [x, y, label] each."""
    labels: list[float] | None = None
    """One for each point: 1 marks the object, 0 the background. The default is 1."""
    box: tuple[float, float, float, float] | None = None
    """x0, y0, x1, y1."""
    mask_from: str | None = None
    """`id` of a mask of an earlier answer for the same image, which is refined."""
    mask_input: str | None = None
    """Instead of `mask_from`: logits [S/4, S/4], little-endian float32 in base64."""


class SegmentRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Prompts for one image, and what the answer is to hold."""

    prompts: list[Prompt]
    multimask: bool = False
    """Whether each prompt gets three masks instead of one."""
    threshold: float | None = None
    """Logit above which a pixel belongs to the mask; null is the bundle's."""
    rle: bool = True
    polygons: bool = False
    low_res: bool = False
    """Whether the answer holds the low-resolution logits."""


class Mask(msgspec.Struct, frozen=True, kw_only=True):
    """A mask of an image, in pixels of the image."""

    id: str
    """Name of the mask for `mask_from`, as long as the image is in the cache."""
    prompt: Count
    """Index of its prompt."""
    predicted_iou: float
    stability_score: float
    area: Count
    """Number of pixels."""
    box: tuple[int, int, int, int]
    """x0, y0, x1, y1; x1 and y1 are the first column and row behind the mask. Four zeros for an
    empty mask."""
    rle: Rle | None = None
    polygons: list[list[Point]] | None = None
    """Rings along the edges of pixels; the even-odd rule fills them to the mask."""
    low_res: str | None = None
    """Logits [S/4, S/4], little-endian float32 in base64."""


class SegmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The masks of a segment request, in the order of its prompts."""

    image_id: str
    width: int
    height: int
    masks: list[Mask]
    seconds: Seconds
    """Time of each step: queue, decoder, masks."""


class ImageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the cache."""

    image_id: str
    width: int
    """Width in pixels as a viewer shows it, after the EXIF orientation is applied."""
    height: int
    stored_width: int
    """Width in pixels before the EXIF orientation is applied."""
    stored_height: int
    enhanced: bool
    """Whether the enhancer ran."""
    estimate: float | None = None
    """What the bundle's gate estimated that the enhancer gains. null if no gate was asked."""
    timestep: int | UnsetType = UNSET
    """The timestep that the enhancer ran, for a bundle with several."""
    cached: bool
    """Whether the image was in the cache before."""
    bytes: Count
    """Memory that the image takes in the cache."""
    note: str | None = None
    """What may be wrong with the image."""
    engine: dict[str, str]
    """Where the image was encoded."""
    seconds: Seconds
    """Time of each step when the image was encoded: queue, read, preprocess, encoder, and gate and
    enhancer if they ran."""


class EverythingMask(msgspec.Struct, frozen=True, kw_only=True):
    """A mask that everything-mode found."""

    predicted_iou: float
    stability_score: float
    area: Count
    box: tuple[int, int, int, int]
    points: list[Point]
    """The point of the grid that found it."""
    crop: tuple[int, int, int, int]
    """x0, y0, x1, y1 of the crop in which it was found."""
    rle: Rle


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as RFC 9457 defines it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """One sentence: what is wrong, where, and what to do."""


class DegradeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to degrade an image."""

    level: Annotated[int, Meta(ge=1, le=3)]
    """LQ-1, LQ-2 or LQ-3."""
    seed: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 0


class BundleAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The public part of a bundle's manifest, its engine, and what the server offers."""

    sha256: str
    model: dict[str, Any]
    preprocessing: dict[str, Any]
    postprocessing: dict[str, Any]
    coordinates: dict[str, Any]
    everything: dict[str, float]
    """Thresholds of everything-mode where a request says none."""
    precision: dict[str, str]
    engine: dict[str, str | None]
    features: dict[str, bool]
    """Whether the server can enhance, and degrade."""
    enhance: bool | Literal["auto"]
    """Which images are enhanced if a request does not say: all, none, or those that the bundle's
    gate chooses."""
    limits: dict[str, int]
    version: str


def encode(answer: msgspec.Struct) -> bytes:
    """Return an answer as JSON."""
    return msgspec.json.encode(answer)
