"""Turn the decoder's logits into the masks of an answer."""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from glesam_runtime import masks
from glesam_runtime.rle import count_runs, encode_runs, run_area, run_box
from glesam_serving.problems import ProblemError
from glesam_serving.server.model import StoppedError, png_of
from glesam_serving.server.polygons import polygons_of
from glesam_serving.wire import EverythingMask, Mask, Rle, SegmentRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from glesam_runtime.everything.search import Found
    from glesam_runtime.image import Geometry
    from glesam_runtime.manifest import Postprocessing
    from glesam_runtime.rle import RunLengths
    from glesam_serving.server.images import EncodedImage


@dataclass(frozen=True)
class Logits:
    """What the decoder said about the prompts of a request."""

    low_res: NDArray[np.float32]
    """[B, C, S/4, S/4], in the order of the prompts."""
    scores: NDArray[np.float32]
    """[B, C]."""


def describe_masks(
    logits: Logits,
    image: EncodedImage,
    rules: Postprocessing,
    request: SegmentRequest,
    stopped: Callable[[], bool],
) -> tuple[list[Mask], float]:
    """Return the masks of an answer, with empty ids, and the seconds that they took.

    Raises:
        StoppedError: the client left.
    """
    start = time.perf_counter()
    rules = with_threshold(rules, request.threshold)
    found = []
    for prompt, (candidates, scores) in enumerate(zip(logits.low_res, logits.scores, strict=True)):
        for low_res, score in zip(candidates, scores, strict=True):
            if stopped():
                raise StoppedError
            # One mask at a time: all masks of a huge image do not fit in memory together.
            found.append(_describe(low_res, float(score), prompt, image.geometry, rules, request))
    return found, time.perf_counter() - start


def with_threshold(rules: Postprocessing, threshold: float | None) -> Postprocessing:
    """Return the rules with another threshold in logits; None leaves them as they are."""
    if threshold is None:
        return rules
    return msgspec.structs.replace(rules, mask_threshold=threshold)


def _describe(
    low_res: NDArray[np.float32],
    score: float,
    prompt: int,
    geometry: Geometry,
    rules: Postprocessing,
    request: SegmentRequest,
) -> Mask:
    made = masks.binarize(low_res, geometry, rules)
    height, width = geometry.original
    runs = count_runs(made.masks)
    x0, y0, x1, y1 = run_box(runs, height)
    area = run_area(runs)
    return Mask(
        id="",
        prompt=prompt,
        predicted_iou=score,
        stability_score=float(made.stability),
        area=area,
        box=(x0, y0, x1 + 1, y1 + 1) if area else (0, 0, 0, 0),
        rle=_rle(runs, height, width) if request.rle else None,
        polygons=polygons_of(made.masks) if request.polygons else None,
        low_res=_base64(masks.for_mask_input(low_res, rules)) if request.low_res else None,
    )


def _base64(logits: NDArray[np.float32]) -> str:
    return base64.b64encode(logits.astype("<f4").tobytes()).decode("ascii")


def mask_png(
    logits: Logits, image: EncodedImage, rules: Postprocessing, threshold: float | None
) -> tuple[bytes, int, dict[str, str]]:
    """Return the best mask of one prompt as a PNG (0 and 255), its index and its scores as headers.

    Raises:
        ProblemError: the request has several prompts.
    """
    if len(logits.scores) != 1:
        raise ProblemError(
            422,
            f"prompts: {len(logits.scores)}, but a PNG holds the mask of one; send one prompt, or "
            "accept application/json",
        )
    best = int(np.argmax(logits.scores[0]))
    made = masks.binarize(logits.low_res[0, best], image.geometry, with_threshold(rules, threshold))
    headers = {
        "X-GleSAM-Predicted-IoU": repr(float(logits.scores[0, best])),
        "X-GleSAM-Stability-Score": repr(float(made.stability)),
    }
    return png_of(made.masks.astype(np.uint8, order="C") * np.uint8(255)), best, headers


def everything_mask(found: Found, height: int, width: int) -> EverythingMask:
    """Return a mask of everything-mode as JSON has it."""
    x0, y0, x1, y1 = found.box
    area = run_area(found.runs)
    return EverythingMask(
        predicted_iou=found.predicted_iou,
        stability_score=found.stability,
        area=area,
        box=(x0, y0, x1 + 1, y1 + 1) if area else (0, 0, 0, 0),
        points=[list(found.point)],
        crop=found.crop.box,
        rle=_rle(found.runs, height, width),
    )


def _rle(runs: RunLengths, height: int, width: int) -> Rle:
    return Rle(size=(height, width), counts=encode_runs(runs, height, width)["counts"])
