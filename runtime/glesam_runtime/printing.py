"""What glesam-run prints: lines for a person, one JSON document for a program, a bar meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.predictor import GleSamPredictor

Result = TypeVar("Result")


@contextmanager
def progress(results: Iterable[Result], count: int) -> Iterator[Iterable[Result]]:
    """A progress bar on stderr, for the results of several images and a person watching."""
    if count < 2 or not sys.stderr.isatty():
        yield results
        return
    from rich.console import Console
    from rich.progress import Progress

    # Rich would print on stderr what is meant for a file that stdout is sent to.
    lines = sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=lines) as bar:
        yield bar.track(results, total=count, description="images")


def print_result(result: dict[str, Any]) -> None:
    """A line an image, and one a mask or one for all."""
    total = sum(result["seconds"].values())
    print(f"{result['image']}  {result['width']} x {result['height']}  {total:.2f} s")
    if "instances" in result:
        _print_everything(result)
        return
    for mask in result["masks"]:
        print(
            f"  {mask['file']}  IoU {mask['predicted_iou']:.3f}  "
            f"stability {mask['stability_score']:.3f}  area {mask['area']}"
        )
    print(f"  {result['overlay']}")


def _print_everything(result: dict[str, Any]) -> None:
    count = len(result["masks"])
    many = "no masks; lower --pred-iou-thresh or --stability-score-thresh to see more"
    if count:
        many = "1 mask" if count == 1 else f"{count} masks"
    print(f"  {result['instances']}  {many}")
    print(f"  {result['overlay']}")


def print_json(document: dict[str, Any]) -> None:
    """The whole of `--json`."""
    import json

    print(json.dumps(document, indent=2, allow_nan=False))


def what_ran(predictor: GleSamPredictor, enhance: bool) -> dict[str, Any]:
    """Bundle, engine and whether the enhancer ran, for JSON."""
    return {
        "bundle": describe_bundle(predictor.bundle),
        "engine": {**predictor.engine.describe(), "reason": predictor.engine_reason},
        "enhance": enhance,
        "load_seconds": round(predictor.timings["load"], 6),
    }


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """Which bundle, and what is in it, for JSON."""
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
