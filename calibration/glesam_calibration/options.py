"""The options of glesam-calibrate: what they are called, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glesam_runtime.errors import InputError

# Imported where used: `--help` needs nothing of it, and a wrong option is told at once.
if TYPE_CHECKING:
    from glesam_calibration.job import Data
    from glesam_calibration.quantize import Recipe
    from glesam_runtime.bundle import Bundle

TRUTH = "scenes:4@2000000"
METHODS = ("mse", "min-max", "percentile", "entropy")

BundlePath = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A float32 bundle; 'nano' is the built-in one.")
]
Places = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[IMAGES]...", help="Image files, folders of them, or .txt lists of paths."
    ),
]
MorePlaces = Annotated[
    list[Path] | None, typer.Option("--images", help="The same as IMAGES; repeatable.")
]
SampleCount = Annotated[
    int, typer.Option(min=1, metavar="N", help="Images times levels to take statistics of.")
]
Seed = Annotated[
    int, typer.Option(min=0, help="Decides which images, their degradations and prompts.")
]
Int8 = Annotated[bool, typer.Option("--int8", help="Eight-bit integers.")]
Fp8 = Annotated[bool, typer.Option("--fp8", help="Eight-bit floats (e4m3).")]
Method = Annotated[
    str | None,
    typer.Option(
        help=f"How ranges are chosen: {', '.join(METHODS)}. Left out: mse for --int8, min-max for "
        "--fp8, percentile with --percentile."
    ),
]
Percentile = Annotated[
    float | None, typer.Option(metavar="P", help="Of all magnitudes kept by percentile; 99.99.")
]
Smooth = Annotated[
    float | None,
    typer.Option(
        metavar="ALPHA", help="Even out channels behind LayerNorms (SmoothQuant), 0 to 1."
    ),
]
WeightsOnly = Annotated[
    str,
    typer.Option(
        metavar="STAGES",
        help="Stages that store weights in eight bits and compute in float32: a comma list of "
        "encoder, enhancer, decoder; 'all' or 'none'.",
    ),
]
Truth = Annotated[
    str, typer.Option("--evaluate", metavar="DATA", help="Images with masks to judge by.")
]
TruthImages = Annotated[
    int, typer.Option("--evaluate-images", min=1, metavar="N", help="How many of them.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from what an interrupted run has kept.")
]
By = Annotated[str, typer.Option(help="Rank each layer, or each block of layers.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error.")]


def recipe(
    int8: bool,
    fp8: bool,
    method: str | None,
    percentile: float | None,
    smooth: float | None,
    weights_only: str,
    keep_float: list[str],
) -> Recipe:
    """Check options and put them together."""
    if int8 == fp8:
        raise InputError("give one of --int8 and --fp8")
    if method is None and percentile is not None:
        method = "percentile"
    if method not in (None, *METHODS):
        raise InputError(f"--method {method}: must be one of {', '.join(METHODS)}")
    if percentile is not None and method != "percentile":
        raise InputError("--percentile goes with --method percentile")
    if percentile is not None and not 50 < percentile <= 100:
        raise InputError(f"--percentile {percentile:g}: must lie above 50 and be at most 100")
    if smooth is not None and not 0 <= smooth <= 1:
        raise InputError(f"--smooth {smooth:g}: must be from 0 to 1")
    require_calibration()
    from glesam_calibration.quantize import Recipe
    from glesam_calibration.ranges import PERCENTILE
    from glesam_runtime.manifest import STAGES

    words = [word.strip() for word in weights_only.split(",") if word.strip()]
    stages = {"all": STAGES, "none": ()}.get(weights_only, tuple(s for s in STAGES if s in words))
    if weights_only not in ("all", "none") and len(stages) != len(words):
        raise InputError(
            f"--weights-only {weights_only}: a comma list of {', '.join(STAGES)}; all or none"
        )
    kept: dict[Any, list[str]] = {}
    for spec in keep_float:
        stage, colon, layer = spec.partition(":")
        if stage not in STAGES or not colon or not layer:
            raise InputError(f"--float {spec}: must be STAGE:LAYER, as sensitivity names them")
        kept.setdefault(stage, []).append(layer)
    return Recipe(
        "int8" if int8 else "fp8",
        method,  # type: ignore[arg-type]  # one of METHODS
        PERCENTILE if percentile is None else percentile,
        smooth,
        stages,
        kept,
    )


def unit_of(by: str) -> Any:
    """Layer or block."""
    if by not in ("layer", "block"):
        raise InputError(f"--by {by}: must be layer or block")
    return by


def open_float(bundle: str) -> Bundle:
    """A bundle by its folder, or the built-in one by the name nano."""
    from glesam_runtime.bundle import open_bundle

    return open_bundle(None if bundle == "nano" and not Path(bundle).exists() else bundle)


def data_of(
    images: list[Path] | None,
    more: list[Path] | None,
    samples: int,
    seed: int,
    evaluate: str,
    count: int,
) -> Data:
    """What is run, and what is judged by."""
    from glesam_calibration.job import Data
    from glesam_evaluation.datasets import open_dataset

    return Data((*(images or ()), *(more or ())), samples, seed, open_dataset(evaluate), count)


def require_calibration() -> None:
    """Tell what is missing by the extra's name."""
    try:
        import cv2  # noqa: F401
        import onnx_ir  # noqa: F401
        import scipy  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed: pip install 'glesam-deploy[calibration]'"
        ) from error
