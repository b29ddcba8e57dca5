"""Follow objects through a video file or camera: write a video with the masks, and JSON Lines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from PIL import Image

from glesam_runtime.draw import colour_of, draw_mask, draw_prompt
from glesam_runtime.errors import InputError
from glesam_runtime.image import geometry_of
from glesam_runtime.input_paths import resolved
from glesam_runtime.prompt_requests import PromptRequest, check_request
from glesam_runtime.results import Rle, VideoMask
from glesam_runtime.rle import encode_rle
from glesam_runtime.staging import staged_file
from glesam_runtime.video_file import VideoReader, VideoWriter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.follow import Followed, Follower
    from glesam_runtime.progress_bars import Bars


@dataclass
class VideoResult:
    """What was written for a video."""

    video: Path
    records: Path
    frames: int = 0
    seconds: float = 0.0
    """Time for all frames, with reading and writing."""
    lost: dict[int, int] = field(default_factory=dict)
    """Number of frames in which an object was lost, by the object's id."""
    broken: str | None = None
    """Why the video ended early; None if it did not."""


def follow_video(
    reader: VideoReader,
    follower: Follower,
    requests: Sequence[PromptRequest],
    folder: Path,
    bars: Bars,
    limit: int | None = None,
) -> VideoResult:
    """Follow the objects of prompts on the first frame through a video.

    Both outputs get their names when they are complete. A video that breaks off is no error here:
    the outputs then hold the frames before.

    Args:
        reader: the open video.
        follower: finds the objects.
        requests: a prompt for each object, in pixels of the frames.
        folder: folder for `<stem>_masks.mp4` and `<stem>_masks.jsonl`.
        bars: shows the progress.
        limit: maximum number of frames.

    Raises:
        InputError: a prompt lies outside the frames, an output cannot be written or is the input,
            or not even the first frame can be decoded.
    """
    stem = Path(reader.name).stem
    result = VideoResult(folder / f"{stem}_masks.mp4", folder / f"{stem}_masks.jsonl")
    for path in (result.video, result.records):
        if resolved(path) == resolved(Path(reader.name)):
            raise InputError(
                f"{reader.name}: the output {path} is the input; choose another folder with -o"
            )
    size = max(reader.height, reader.width)
    prompts = []
    for request in requests:
        try:
            prompts.append(check_request(request, geometry_of(reader.height, reader.width, size)))
        except InputError as error:
            raise InputError(f"{reader.name}: {error}") from error
    folder.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    frames: Iterable[tuple[float, NDArray[np.uint8]]] = reader.frames(limit)
    frames = bars.images(frames, limit or reader.expected or 0)
    with ExitStack() as staged:  # both files are complete before the first gets its name
        records = staged.enter_context(staged.enter_context(staged_file(result.records)).open("wb"))
        place = staged.enter_context(staged_file(result.video))
        writer = VideoWriter(place, reader.height, reader.width, reader.rate)
        try:
            for seconds, image in frames:
                first = result.frames == 0
                objects = follower.start_with(image, prompts) if first else follower.next(image)
                for number, each in enumerate(objects, start=1):
                    record = _record(result.frames, seconds, number, each)
                    records.write(msgspec.json.encode(record) + b"\n")
                    result.lost[number] = result.lost.get(number, 0) + each.lost
                writer.write(_drawn(image, objects, requests if first else ()))
                result.frames += 1
            if result.frames == 0:
                raise InputError(
                    f"{reader.name}: no frame can be decoded ({reader.broken or 'it holds none'})"
                )
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        records.close()
    result.seconds = time.perf_counter() - start
    result.broken = reader.broken
    return result


def _record(frame: int, seconds: float, number: int, found: Followed) -> VideoMask:
    return VideoMask(
        frame=frame,
        time=round(seconds, 6),
        id=number,
        lost=found.lost,
        box=found.box,
        predicted_iou=round(found.score, 6),
        stability_score=round(found.stability, 6),
        area=found.area,
        rle=msgspec.convert(encode_rle(found.mask), Rle),
    )


def _drawn(
    image: NDArray[np.uint8], objects: Sequence[Followed], requests: Sequence[PromptRequest]
) -> NDArray[np.uint8]:
    """Return a frame with the masks, and on the first frame the prompts, drawn over it."""
    canvas = Image.fromarray(image)
    for number, each in enumerate(objects):
        draw_mask(canvas, each.mask, colour_of(number))
    for number, request in enumerate(requests):
        draw_prompt(canvas, request, colour_of(number))
    return np.asarray(canvas)
