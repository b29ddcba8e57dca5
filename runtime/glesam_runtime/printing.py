"""Print the output of glesam-run: lines of text, or a JSON document."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glesam_runtime.results import ImageResult

_LONGEST = 2000
"""Characters of a line on stderr; the longest path of Linux has 4096 bytes, and few are near it."""

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, line separators, and marks that turn the direction of text."""


def printable(text: str) -> str:
    """Escape the control characters of a line, so that a file name cannot command a terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def message_line(text: str) -> str:
    """Return a message as one line of at most 2000 characters, with control characters escaped.

    A message may repeat a name or a value of a file, and a hostile one has millions of characters.
    """
    if len(text) <= _LONGEST and len(line := printable(" ".join(text.split()))) <= _LONGEST:
        return line
    start = printable(" ".join(text[:_LONGEST].split()))
    end = printable(" ".join(text[-_LONGEST:].split()))
    half = _LONGEST // 2
    return f"{start[:half]} ... {end[-half:]}"


def print_line(text: str) -> None:
    """Print a line on stdout with control characters escaped."""
    print(printable(text))


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
