"""Print the output of glesam-run: lines of text, or a JSON document."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from glesam_runtime.terminal_text import print_line

if TYPE_CHECKING:
    from glesam_runtime.follow_video import VideoResult
    from glesam_runtime.results import ImageResult


def print_result(result: ImageResult) -> None:
    """Print a line for the image and lines for its masks."""
    total = sum(result.seconds.values())
    print_line(f"{result.image}  {result.width} x {result.height}  {total:.2f} s")
    if result.instances:
        _print_everything(result)
        return
    for mask in result.masks:
        print_line(
            f"  {mask.file}  IoU {mask.predicted_iou:.3f}  "
            f"stability {mask.stability_score:.3f}  area {mask.area}"
        )
    print_line(f"  {result.overlay}")


def print_video(result: VideoResult) -> None:
    """Print a line for the video, and lines for its outputs and for objects that were lost."""
    rate = result.frames / result.seconds if result.seconds else 0.0
    print_line(f"{result.frames} frames  {result.seconds:.2f} s  {rate:.1f} frames per second")
    print_line(f"  {result.video}")
    print_line(f"  {result.records}")
    for number, frames in result.lost.items():
        if frames:
            print_line(f"  object {number}: lost in {frames} of {result.frames} frames")


def _print_everything(result: ImageResult) -> None:
    count = len(result.masks)
    found = "no masks; lower --pred-iou-thresh or --stability-score-thresh to get more"
    if count:
        found = "1 mask" if count == 1 else f"{count} masks"
    print_line(f"  {result.instances}  {found}")
    for path in (result.colours, result.overlay):
        if path:
            print_line(f"  {path}")


def print_json(document: object) -> None:
    """Print the document of `--json`, with null for numbers that are NaN or infinite."""
    import json

    import msgspec

    built_in = msgspec.to_builtins(document)
    print(json.dumps(_finite(built_in), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """Replace the numbers that JSON cannot express, as of a self-test that failed, by None."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
