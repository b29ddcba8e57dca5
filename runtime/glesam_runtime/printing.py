"""Print the output of glesam-run: lines of text, a JSON document, and a progress bar."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.predictor import GleSamPredictor

Result = TypeVar("Result")

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


def print_note(text: str) -> None:
    """Print `note: ...` on stderr as one line."""
    print("note:", message_line(text), file=sys.stderr)


@contextmanager
def progress(results: Iterable[Result], count: int) -> Iterator[Iterable[Result]]:
    """Show a progress bar on stderr if there are several results and stderr is a terminal."""
    if count < 2 or not sys.stderr.isatty():
        yield results
        return
    from rich.console import Console
    from rich.progress import Progress

    # Rich redirects stdout to stderr, which is wrong if stdout goes to a file.
    lines = sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=lines) as bar:
        yield bar.track(results, total=count, description="images")


def print_line(text: str) -> None:
    """Print a line on stdout with control characters escaped."""
    print(printable(text))


def print_result(result: dict[str, Any]) -> None:
    """Print a line for the image and lines for its masks."""
    total = sum(result["seconds"].values())
    print_line(f"{result['image']}  {result['width']} x {result['height']}  {total:.2f} s")
    if "instances" in result:
        _print_everything(result)
        return
    for mask in result["masks"]:
        print_line(
            f"  {mask['file']}  IoU {mask['predicted_iou']:.3f}  "
            f"stability {mask['stability_score']:.3f}  area {mask['area']}"
        )
    print_line(f"  {result['overlay']}")


def _print_everything(result: dict[str, Any]) -> None:
    count = len(result["masks"])
    found = "no masks; lower --pred-iou-thresh or --stability-score-thresh to get more"
    if count:
        found = "1 mask" if count == 1 else f"{count} masks"
    print_line(f"  {result['instances']}  {found}")
    print_line(f"  {result['overlay']}")


def noted(note: str | None) -> dict[str, str]:
    """Return the note of an image as a part of its entry in JSON."""
    return {} if note is None else {"note": note}


def print_json(document: dict[str, Any]) -> None:
    """Print the document of `--json`, with null for numbers that are NaN or infinite."""
    import json

    print(json.dumps(_finite(document), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """Replace the numbers that JSON cannot express, as of a self-test that failed, by None."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def what_ran(predictor: GleSamPredictor, enhance: bool) -> dict[str, Any]:
    """Return bundle, engine and whether the enhancer ran, for JSON."""
    return {
        "bundle": describe_bundle(predictor.bundle),
        "engine": {**predictor.engine.describe(), "reason": predictor.engine_reason},
        "enhance": enhance,
        "load_seconds": round(predictor.timings["load"], 6),
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Return the bundle's path, hash and model, for JSON."""
    model = bundle.manifest.model
    return {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "family": model.family,
        "preset": model.preset,
        "unet": model.unet,
        "trained": model.trained,
        "precision": {name: stage.precision for name, stage in bundle.manifest.stages.items()},
    }
