"""Answer everything-mode line by line: progress first, then the masks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from glesam_runtime.errors import InputError
from glesam_runtime.everything.crops import plan_crops
from glesam_runtime.everything.grids import layer_grids
from glesam_runtime.everything.parameters import Parameters, numbers
from glesam_serving.problems import ProblemError, document
from glesam_serving.server.answers import everything_mask

if TYPE_CHECKING:
    from glesam_serving.server.images import EncodedImage
    from glesam_serving.server.scheduler import Scheduler

MAX_PROMPTS = 65_536
"""Points of all grids and crops together."""
_MAX_LAYERS = 4


def read_parameters(raw: bytes, prompt_batch: int) -> Parameters:
    """Read the JSON of an everything request; an empty body is the defaults.

    Raises:
        ProblemError: it is not a JSON object, or has an unknown parameter.
        InputError: a value is outside its range.
    """
    known = [each.name for each in numbers()]
    try:
        given = msgspec.json.decode(raw or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProblemError(400, f"the request is not a JSON object ({error})") from error
    for name in given:
        if name not in known:
            raise ProblemError(
                422, f"{name[:64]!r} is not a parameter; known are {', '.join(known)}"
            )
    given.setdefault("points_per_batch", prompt_batch)
    layers, side = given.get("crop_n_layers", 0), given.get("points_per_side", 32)
    if isinstance(layers, int) and layers > _MAX_LAYERS:
        raise ProblemError(
            422, f"crop_n_layers {layers}: at most {_MAX_LAYERS} on a server; search fewer"
        )
    if isinstance(side, int) and side > 256:
        raise ProblemError(422, f"points_per_side {side}: at most 256 on a server; use fewer")
    if side is None:
        raise ProblemError(422, "points_per_side: a whole number is needed; leave it out for 32")
    return Parameters(**given)


def count_prompts(parameters: Parameters, image: EncodedImage) -> int:
    """Return the number of prompts of a search.

    Raises:
        ProblemError: it is larger than a server allows.
        InputError: the image is too small for the crops.
    """
    grids = layer_grids(
        parameters.points_per_side,
        parameters.point_grids,
        parameters.crop_n_layers,
        parameters.crop_n_points_downscale_factor,
    )
    height, width = image.geometry.original
    crops = plan_crops(height, width, parameters.crop_n_layers, parameters.crop_overlap_ratio)
    total = sum(len(grids[crop.layer]) for crop in crops)
    if total > MAX_PROMPTS:
        raise ProblemError(
            422,
            f"the search has {total} prompts, more than this server's limit of {MAX_PROMPTS}; "
            "lower points_per_side or crop_n_layers",
        )
    return total


async def lines(
    scheduler: Scheduler, image: EncodedImage, parameters: Parameters, total: int
) -> AsyncGenerator[bytes, None]:
    """Yield the lines of the answer. Closing the iterator ends the search."""
    progress: asyncio.Queue[int | None] = asyncio.Queue()
    start, done = time.perf_counter(), 0
    task = asyncio.ensure_future(scheduler.search(image, parameters, progress.put_nowait))
    task.add_done_callback(lambda _: progress.put_nowait(None))
    try:
        yield _line({"progress": 0.0})
        while (count := await progress.get()) is not None:
            while not progress.empty():  # one line for all that came meanwhile
                more = progress.get_nowait()
                if more is None:
                    progress.put_nowait(None)
                    break
                count += more
            done += count
            yield _line({"progress": round(min(1.0, done / total), 4)})
        try:
            found = task.result()
        except (InputError, ProblemError) as error:
            yield _line({"error": document(error)})
            return
        except Exception as error:  # noqa: BLE001 - the status is sent already
            yield _line({"error": document(error)})
            return
        height, width = image.geometry.original
        for each in found:
            yield _line({"mask": await scheduler.finish(everything_mask, each, height, width)})
        seconds = round(time.perf_counter() - start, 6)
        yield _line({"done": True, "masks": len(found), "seconds": seconds})
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


def _line(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value) + b"\n"
