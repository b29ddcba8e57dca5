"""Implement the command glesam-degrade, which writes a low-quality version of an image."""

from __future__ import annotations

import dataclasses
import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app
from glesam_runtime.errors import InputError

# Imported where used, so that `--help` works without OpenCV.
if TYPE_CHECKING:
    from glesam_evaluation.degrade import Recipe, ReleasedRecipe, ReleasedSettings, Settings, Single

degrade_app = make_app(
    "Degrade an image as LQSeg does (blur, resize, noise and JPEG, twice), or by one of RobustSeg's"
    " fifteen degradations."
)

_LOSSLESS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}


def degrade_main() -> NoReturn:
    """Run the glesam-degrade command."""
    run_app(degrade_app, "glesam-degrade")


@degrade_app.command()
def degrade(
    image: Annotated[Path, typer.Argument(help="Image file to degrade.")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="File to write: .png, .bmp or .tif."),
    ],
    level: Annotated[
        int | None,
        typer.Option(
            metavar="1|2|3",
            help="Level LQ-1, LQ-2 or LQ-3: in between, the image has 1/1, 1/2 or 1/4 of its size. "
            "Default with a released recipe: the rate is drawn as its code does.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A single degradation instead of a level, such as fog, motion_blur or haze. An "
            "unknown name prints the list.",
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            metavar="0..1",
            help="Strength of --kind. 1 is the published strength of a RobustSeg degradation.",
        ),
    ] = 1.0,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="paper (the text of the paper), released (the authors' training code) or "
            "released-test (their script for the test sets).",
        ),
    ] = "paper",
    square: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="With a released recipe: write a square image of this side, as the authors' code "
            "does (512). Default: the size of the image.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random degradation.")] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print the drawn parameters as JSON.")
    ] = False,
) -> None:
    """Degrade IMAGE to LQ-1, LQ-2 or LQ-3, or by one --kind, and write it to FILE.

    The same image, options and seed give the same file. One seed uses the same blur, noise and JPEG
    quality at every level, so its levels can be compared.
    """
    _require_opencv()
    from glesam_evaluation.degrade import Single, sample_recipe

    drawn: Recipe | ReleasedRecipe | Single
    if kind is not None:
        _refuse(
            {
                "--level": level,
                "--square": square,
                "--recipe": None if recipe == "paper" else recipe,
            },
            f"--kind {kind} is a degradation of its own",
        )
        drawn = Single(kind, strength, seed)
        what = f"{kind} {strength:g}"
    else:
        if strength != 1:
            raise InputError(f"--strength {strength:g}: needs --kind")
        drawn = sample_recipe(level, seed, _settings(recipe, level, square))
        what = f"LQ-{level}" if level else f"rate 1/{drawn.rate}"

    file_format = _LOSSLESS.get(output.suffix.lower())
    if file_format is None:
        raise InputError(
            f"{output}: must be a lossless file ({', '.join(_LOSSLESS)}), because other formats "
            "degrade the image further"
        )
    if output.exists() and image.exists() and output.samefile(image):
        raise InputError(f"{output}: is the input image; choose another name for the output")

    from PIL import Image

    from glesam_evaluation.degrade import apply_recipe, degrade_single
    from glesam_runtime.image_file import read_image
    from glesam_runtime.staging import staged_file

    clear = read_image(image)
    try:
        if isinstance(drawn, Single):
            low = degrade_single(clear, drawn.kind, drawn.strength, drawn.seed)
        else:
            low = apply_recipe(clear, drawn, square)
    except InputError as error:
        raise InputError(f"{image}: {error}") from error
    with staged_file(output) as partial:
        Image.fromarray(low).save(partial, format=file_format)

    if json:
        made = {"image": str(image), "output": str(output), "seed": seed}
        print(json_format.dumps({**made, "recipe": dataclasses.asdict(drawn)}, indent=2))
    else:
        print(f"{output}  {what}  seed {seed}  {low.shape[1]} x {low.shape[0]}")


def _settings(recipe: str, level: int | None, square: int | None) -> Settings | ReleasedSettings:
    """Return the settings of a recipe, and check the options that depend on it."""
    from glesam_evaluation.degrade import ReleasedSettings, recipe_settings

    settings = recipe_settings(recipe)
    if not isinstance(settings, ReleasedSettings):
        if level is None:
            raise InputError("give --level 1, 2 or 3, or one degradation with --kind")
        _refuse({"--square": square}, f"--recipe {recipe} keeps the size of an image")
    return settings


def _refuse(options: dict[str, object], why: str) -> None:
    """Raise InputError if any of the options is given."""
    for name, value in options.items():
        if value is not None:
            raise InputError(f"{name} {value}: {why}; leave {name} out")


def _require_opencv() -> None:
    try:
        import glesam_evaluation.degrade  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("cv2", "scipy"):
            raise
        raise InputError(
            f"{error.name} is not installed: pip install 'glesam-deploy[calibration]'"
        ) from error
