"""Read prompts from the command line or a prompts file, before any image is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from glesam_runtime.errors import InputError
from glesam_runtime.input_paths import STANDARD_INPUT, read_standard_input, refuse_named_fifo
from glesam_runtime.limits import JSON_BYTES, POINTS, PROMPTS
from glesam_runtime.results import Mask, Prompt

if TYPE_CHECKING:
    from glesam_runtime.image import Geometry
    from glesam_runtime.prompts import PromptBatch


@dataclass(frozen=True)
class PromptRequest:
    """One object to segment, in pixels of the original image; not yet checked against the image."""

    where: str
    """Its origin for error messages: an option, or a file and an entry."""
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[float, ...] = ()
    box: tuple[float, float, float, float] | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A prompts file with the prompts under a key."""

    prompts: list[msgspec.Raw]


class _Kind(msgspec.Struct):
    """What tells a prompts file from results, and a prompt from a mask."""

    images: msgspec.Raw | UnsetType = UNSET
    rle: msgspec.Raw | UnsetType = UNSET


class _ImageMasks(msgspec.Struct):
    masks: list[msgspec.Raw] = []


class _Results(msgspec.Struct):
    images: list[_ImageMasks]


def from_options(points: Sequence[str], boxes: Sequence[str]) -> list[PromptRequest]:
    """Read the prompts of `--points x,y[,label]` and `--box x0,y0,x1,y1`.

    All points together are one prompt, like several clicks on one object; a single box given with
    points belongs to that prompt. Without points each box is a separate prompt.

    Raises:
        InputError: the value of an option is not such numbers, or points are given with several
            boxes.
    """
    if points and len(boxes) > 1:
        raise InputError(
            "--points with several --box: use a --prompts file to say which box the points "
            "belong to"
        )
    POINTS.check(len(points), f"--points: {len(points)} points")
    PROMPTS.check(len(boxes), f"--box: {len(boxes)} boxes")
    clicks = [_numbers(text, "--points", "x,y or x,y,label", (2, 3)) for text in points]
    corners = [_numbers(text, "--box", "x0,y0,x1,y1", (4,)) for text in boxes]
    frames = [(x0, y0, x1, y1) for x0, y0, x1, y1 in corners]
    if clicks:
        where = "--points and --box" if frames else "--points"
        return [
            PromptRequest(
                where,
                tuple((click[0], click[1]) for click in clicks),
                tuple(click[2] if len(click) == 3 else 1.0 for click in clicks),
                frames[0] if frames else None,
            )
        ]
    return [PromptRequest("--box", box=frame) for frame in frames]


def from_file(path: Path) -> list[PromptRequest]:
    """Read the prompts of a JSON file, or of standard input for the path `-`.

    The file holds an array of prompts, {"prompts": [...]}, or the results of one image as --json
    prints them. A prompt is {"points": [[x, y], ...], "labels": [1, 0, ...], "box": [x0, y0, x1,
    y1]} with points, a box or both; a label may also be the third number of a point, and the
    default is 1. A mask of results is a prompt too: its box, and its point if it has one.

    Raises:
        InputError: naming the file and the entry.
    """
    raw = _content(path)
    try:
        listed = _entries(raw, path)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: not a prompts file ({error})") from error
    if not listed:
        raise InputError(f"{path}: holds no prompts")
    PROMPTS.check(len(listed), f"{path}: holds {len(listed)} prompts")
    return [from_entry(entry, f"{path}: prompt {index}") for index, entry in enumerate(listed)]


def _content(path: Path) -> bytes:
    if str(path) in STANDARD_INPUT:
        return read_standard_input(str(path), JSON_BYTES, "prompts")
    refuse_named_fifo(path)
    try:
        with path.open("rb") as file:
            raw = file.read(JSON_BYTES.value + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    JSON_BYTES.check(len(raw), f"{path}: the prompts file is too long")
    return raw


def _entries(raw: bytes, path: Path) -> list[msgspec.Raw]:
    """Return the prompts of a file, each still as JSON."""
    whole = msgspec.json.decode(raw, type=list[msgspec.Raw] | _Kind)
    if isinstance(whole, list):
        return whole
    if whole.images is UNSET:
        return msgspec.json.decode(raw, type=_File).prompts
    images = msgspec.json.decode(raw, type=_Results).images
    if len(images) != 1:
        raise InputError(
            f"{path}: holds the results of {len(images)} images; prompts are those of one image"
        )
    return images[0].masks


def check_without_image(requests: Sequence[PromptRequest]) -> None:
    """Refuse prompts that no image fits, before a model is loaded.

    Raises:
        InputError: a number is NaN or infinite, a label is neither 1 nor 0, a point is negative, or
            the corners of a box are swapped; the message names the prompt.
    """
    for request in requests:
        numbers = [*request.labels, *(each for point in request.points for each in point)]
        if not all(map(isfinite, [*numbers, *(request.box or ())])):
            raise InputError(f"{request.where}: holds NaN or infinity")
        for (x, y), label in zip(request.points, request.labels, strict=True):
            if x < 0 or y < 0:
                raise InputError(
                    f"{request.where}: point {x:g},{y:g} lies outside the image, whose pixels are "
                    "counted from 0"
                )
            if label not in (0, 1):
                raise InputError(
                    f"{request.where}: label {label:g} of point {x:g},{y:g}: must be 1 (object) or "
                    "0 (background)"
                )
        if request.box and (request.box[2] <= request.box[0] or request.box[3] <= request.box[1]):
            spelled = ",".join(f"{each:g}" for each in request.box)
            raise InputError(
                f"{request.where}: box {spelled}: x1 must exceed x0 and y1 must exceed y0"
            )


def check_size(requests: Sequence[PromptRequest], size: tuple[int, int], image: str) -> None:
    """Refuse prompts that do not fit an image, before a model is loaded.

    Args:
        requests: the prompts.
        size: (height, width) of the image in pixels.
        image: the image's name in messages.

    Raises:
        InputError: naming the image and the prompt.
    """
    from glesam_runtime.image import Geometry

    geometry = Geometry(max(size), size, size)  # the resized size does not matter here
    try:
        for request in requests:
            check_request(request, geometry)
    except InputError as error:
        raise InputError(f"{image}: {error}") from error


def check_request(request: PromptRequest, geometry: Geometry) -> PromptBatch:
    """Check a request against an image and return it as a batch of one.

    Raises:
        InputError: the request cannot be used; the message names it.
    """
    from glesam_runtime.prompts import check_prompts

    try:
        return check_prompts(
            geometry,
            [request.points] if request.points else None,
            [request.labels] if request.points else None,
            [request.box] if request.box else None,
        )
    except InputError as error:
        raise InputError(f"{request.where}: {error}") from error


def from_entry(raw: msgspec.Raw, where: str) -> PromptRequest:
    """Read one prompt of a prompts file, or one mask of results.

    Args:
        raw: the entry, still as JSON.
        where: its origin, for error messages.

    Raises:
        InputError: the entry is not a prompt.
    """
    try:
        if msgspec.json.decode(raw, type=_Kind).rle is not UNSET:
            mask = msgspec.json.decode(raw, type=Mask)
            entry = Prompt([list(point) for point in mask.points or ()], None, mask.box)
        else:
            entry = msgspec.json.decode(raw, type=Prompt)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{where}: {error}") from error
    return from_prompt(entry, where)


def from_prompt(entry: Prompt, where: str) -> PromptRequest:
    """Check one prompt without its image.

    Args:
        entry: the prompt.
        where: its origin, for error messages.

    Raises:
        InputError: it has neither points nor a box, or labels that do not match its points.
    """
    if not entry.points and entry.box is None:
        raise InputError(f"{where}: has neither points nor a box; give one of them")
    if entry.labels is not None and len(entry.labels) != len(entry.points):
        raise InputError(
            f"{where}: {len(entry.labels)} labels do not match {len(entry.points)} points"
        )
    POINTS.check(len(entry.points), f"{where}: holds {len(entry.points)} points")
    points, labels = [], []
    for index, point in enumerate(entry.points):
        if len(point) not in (2, 3):
            raise InputError(f"{where}: point {index} is not [x, y] or [x, y, label]")
        if len(point) == 3 and entry.labels is not None:
            raise InputError(
                f"{where}: point {index} has a label, but labels are given too; leave out one"
            )
        points.append((point[0], point[1]))
        own = point[2] if len(point) == 3 else 1.0
        labels.append(own if entry.labels is None else entry.labels[index])
    return PromptRequest(where, tuple(points), tuple(labels), entry.box)


def _numbers(text: str, option: str, form: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    """Read the numbers of an option's value."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"{option} {text}: {form} is needed, in pixels") from error
    if len(values) not in counts:
        raise InputError(f"{option} {text}: {form} is needed, in pixels")
    return values
