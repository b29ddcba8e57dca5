"""Declare the options of glesam-calibrate once, for all of its commands, and check their values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from glesam_runtime.enhancement_gate import GateTarget
from glesam_runtime.errors import InputError

# Imported where used, so that `--help` and wrong options need none of these modules.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from glesam_calibration.calibrator import Data
    from glesam_calibration.quantize import Recipe
    from glesam_runtime.bundle import Bundle

METHODS = ("mse", "min-max", "percentile", "entropy")

BundlePath = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE",
        help="A float32 bundle: a folder, 'nano' for the built-in one, or a Hugging Face "
        "repository ORG/NAME[@REVISION].",
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of the choice of images, degradations and prompts.")
]
Smooth = Annotated[
    float | None,
    typer.Option(
        metavar="ALPHA",
        help="Move the scale of outlier channels behind LayerNorms into the weights (SmoothQuant); "
        "0 moves nothing, 1 everything. Default: no smoothing.",
    ),
]
Attention = Annotated[
    bool,
    typer.Option(
        "--attention",
        help="Quantize the two products of attention too; needs --fp8. TensorRT then computes "
        "attention in eight bits.",
    ),
]
By = Annotated[
    str, typer.Option(help="What to rank: each 'layer', or each 'block' of layers (faster).")
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue from the statistics of a run that was interrupted or failed its limits.",
    ),
]
JudgeImages = Annotated[
    int,
    typer.Option(
        "--evaluate-images", min=1, metavar="N", help="Number of images of --evaluate to use."
    ),
]


@dataclass(frozen=True)
class ImageOptions:
    """The images of a calibration: for statistics, and for the comparison with the float bundle."""

    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGES]...", help="Image files, folders of them, or .txt lists of paths."
        ),
    ] = None
    more: Annotated[
        list[Path] | None, typer.Option("--images", help="Same as IMAGES; repeatable.")
    ] = None
    samples: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of samples for statistics; a sample is one image at one level.",
        ),
    ] = 64
    seed: Seed = 0
    evaluate: Annotated[
        str,
        typer.Option(
            "--evaluate",
            metavar="DATA",
            help="Images with masks to compare both bundles on: a folder, a COCO or LVIS JSON "
            "file, or scenes:N for N procedural scenes.",
        ),
    ] = "scenes:4@2000000"

    def data(self, judge_images: int) -> Data:
        """Return the images that the options choose.

        Raises:
            InputError: the dataset to compare on cannot be opened.
        """
        from glesam_calibration.calibrator import Data
        from glesam_evaluation.datasets import open_dataset

        places = (*(self.images or ()), *(self.more or ()))
        truth = open_dataset(self.evaluate)
        return Data(places, self.samples, self.seed, truth, judge_images)


@dataclass(frozen=True)
class RecipeOptions:
    """Options that say how to quantize."""

    int8: Annotated[bool, typer.Option("--int8", help="Quantize to eight-bit integers.")] = False
    fp8: Annotated[bool, typer.Option("--fp8", help="Quantize to eight-bit floats (e4m3).")] = False
    method: Annotated[
        str | None,
        typer.Option(
            help=f"How to choose ranges: {', '.join(METHODS)}. Default: mse for --int8, "
            f"min-max for "
            "--fp8."
        ),
    ] = None
    percentile: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Percentage of all magnitudes that --method percentile keeps, above 50. Default: "
            "99.99.",
        ),
    ] = None
    weights_only: Annotated[
        str,
        typer.Option(
            metavar="STAGES",
            help="Stages that store weights in eight bits and compute in float32: a "
            "comma-separated "
            "list of encoder, enhancer, decoder; or 'all', or 'none'.",
        ),
    ] = "decoder"

    def recipe(
        self,
        smooth: float | None = None,
        keep_float: Sequence[str] = (),
        attention: bool = False,
    ) -> Recipe:
        """Check the options and return their recipe.

        Args:
            smooth: value of --smooth.
            keep_float: values of --float, each STAGE:LAYER.
            attention: value of --attention.

        Raises:
            InputError: an option is not valid, or packages for calibration are not installed.
        """
        method, percentile = self._method(), self.percentile
        if self.int8 == self.fp8:
            raise InputError("give one of --int8 and --fp8")
        if percentile is not None and not 50 < percentile <= 100:
            raise InputError(f"--percentile {percentile:g}: must be above 50 and at most 100")
        if smooth is not None and not 0 <= smooth <= 1:
            raise InputError(f"--smooth {smooth:g}: must be from 0 to 1")
        require_calibration()
        from glesam_calibration.quantize import Recipe
        from glesam_calibration.ranges import PERCENTILE

        return Recipe(
            "int8" if self.int8 else "fp8",
            method,
            PERCENTILE if percentile is None else percentile,
            smooth,
            self._stages(),
            _layers_by_stage(keep_float),
            attention=attention,
        )

    def _method(self) -> Any:
        """Return one of METHODS, or None for the default of the kind."""
        method = self.method
        if method is None and self.percentile is not None:
            method = "percentile"
        if method not in (None, *METHODS):
            raise InputError(f"--method {method}: must be one of {', '.join(METHODS)}")
        if self.percentile is not None and method != "percentile":
            raise InputError("--percentile requires --method percentile")
        return method

    def _stages(self) -> Any:
        """Return the stages of --weights-only."""
        from glesam_runtime.manifest import STAGES

        text = self.weights_only
        words = [word.strip() for word in text.split(",") if word.strip()]
        stages = {"all": STAGES, "none": ()}.get(text, tuple(s for s in STAGES if s in words))
        if text not in ("all", "none") and len(stages) != len(words):
            raise InputError(
                f"--weights-only {text}: must be a comma-separated list of {', '.join(STAGES)}; or "
                "all, or none"
            )
        return stages


def _layers_by_stage(specs: Sequence[str]) -> dict[Any, list[str]]:
    """Return the layers of --float by stage."""
    from glesam_runtime.manifest import STAGES

    kept: dict[Any, list[str]] = {}
    for spec in specs:
        stage, colon, layer = spec.partition(":")
        if stage not in STAGES or not colon or not layer:
            raise InputError(
                f"--float {spec}: must be STAGE:LAYER; `glesam-calibrate sensitivity` lists layers"
            )
        kept.setdefault(stage, []).append(layer)
    return kept


def unit_of(by: str) -> Any:
    """Check the value of --by, and return it as a unit of sensitivity."""
    if by not in ("layer", "block"):
        raise InputError(f"--by {by}: must be layer or block")
    return by


def gate_target(target: str | None) -> GateTarget | None:
    """Check the value of --target of a gate, and return it.

    Raises:
        InputError: it is unknown.
    """
    if target not in (None, *(known := get_args(GateTarget))):
        raise InputError(f"--target {target}: must be {', '.join(known[:-1])} or {known[-1]}")
    return target  # type: ignore[return-value]


def open_float(bundle: str) -> Bundle:
    """Open a bundle by its folder, or the built-in one by the name nano."""
    from glesam_runtime.bundle import open_bundle

    return open_bundle(None if bundle == "nano" and not Path(bundle).exists() else bundle)


def require_calibration() -> None:
    """Raise InputError if a package that calibration needs is not installed."""
    try:
        import cv2  # noqa: F401
        import onnx_ir  # noqa: F401
        import scipy  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed: pip install 'glesam-deploy[calibration]'"
        ) from error
