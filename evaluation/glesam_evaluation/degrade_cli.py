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
    from glesam_evaluation.degrade import Recipe

degrade_app = make_app("Degrade an image as LQSeg does: blur, resize, noise and JPEG, twice.")

_LOSSLESS = {".png": "PNG", ".bmp": "BMP", ".tif": "TIFF", ".tiff": "TIFF"}


def degrade_main() -> NoReturn:
    """Run the glesam-degrade command."""
    run_app(degrade_app, "glesam-degrade")


@degrade_app.command()
def degrade(
    image: Annotated[Path, typer.Argument(help="Image file to degrade.")],
    level: Annotated[
        int,
        typer.Option(
            metavar="1|2|3",
            help="Level LQ-1, LQ-2 or LQ-3: in between, the image has 1/1, 1/2 or 1/4 of its size.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="File to write: .png, .bmp or .tif."),
    ],
    seed: Annotated[int, typer.Option(help="Seed of the random degradation.")] = 0,
    json: Annotated[
        bool, typer.Option("--json", help="Print the drawn parameters as JSON.")
    ] = False,
) -> None:
    """Degrade IMAGE to LQ-1, LQ-2 or LQ-3 and write it, at its original size, to FILE.

    The same image, level and seed give the same file. One seed uses the same blur, noise and JPEG
    quality at every level, so its levels can be compared.
    """
    recipe = _draw(level, seed)
    file_format = _LOSSLESS.get(output.suffix.lower())
    if file_format is None:
        raise InputError(
            f"{output}: must be a lossless file ({', '.join(_LOSSLESS)}), because other "
            f"formats degrade "
            "the image further"
        )
    if output.exists() and image.exists() and output.samefile(image):
        raise InputError(f"{output}: is the input image; choose another name for the output")

    from PIL import Image

    from glesam_evaluation.degrade import apply_recipe
    from glesam_runtime.image_file import read_image
    from glesam_runtime.staging import staged_file

    low = apply_recipe(read_image(image), recipe)
    with staged_file(output) as partial:
        Image.fromarray(low).save(partial, format=file_format)

    if json:
        drawn = {"image": str(image), "output": str(output), "seed": seed}
        print(json_format.dumps({**drawn, "recipe": dataclasses.asdict(recipe)}, indent=2))
    else:
        print(f"{output}  LQ-{level}  seed {seed}  {low.shape[1]} x {low.shape[0]}")


def _draw(level: int, seed: int) -> Recipe:
    try:
        from glesam_evaluation.degrade import sample_recipe
    except ModuleNotFoundError as error:
        if error.name not in ("cv2", "scipy"):
            raise
        raise InputError(
            f"{error.name} is not installed: pip install 'glesam-deploy[calibration]'"
        ) from error
    return sample_recipe(level, seed)
