"""Provide the sample picture and its prompts, which `glesam-run --demo` segments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SAMPLE = Path(__file__).parent / "sample"
"""Made by tests/studies/make_sample.py."""


@dataclass(frozen=True)
class Sample:
    """The files of a sample: a picture and a prompts file for it."""

    image: Path
    prompts: Path


def sample_image() -> NDArray[np.uint8]:
    """Return the sample picture, uint8 [384, 512, 3], RGB: shapes on a textured ground, degraded.

    Its prompts are listed in sample/sample.json in this package.
    """
    from glesam_runtime.image_file import read_image

    return read_image(_SAMPLE / "sample.jpg")


def write_sample(folder: Path) -> Sample:
    """Copy the sample's picture and prompts into a folder, which is created if it is missing.

    Raises:
        InputError: the files cannot be written, or would replace other files of the same names.
    """
    from glesam_runtime.staging import staged_file

    folder.mkdir(parents=True, exist_ok=True)
    sample = Sample(folder / "sample.jpg", folder / "sample.json")
    for place in (sample.image, sample.prompts):
        content = (_SAMPLE / place.name).read_bytes()
        if place.exists() and place.read_bytes() != content:
            raise InputError(
                f"{place}: exists and is not the sample; choose another folder with -o"
            )
        with staged_file(place) as partial:
            partial.write_bytes(content)
    return sample


def describe_demo(folder: Path) -> str:
    """Return the closing lines of the demo: what it wrote, and a command to try next."""
    picture, overlay = folder / "sample.jpg", folder / "sample_overlay.png"
    return (
        f"Wrote the picture {picture}, its prompts, a mask for each prompt and {overlay}.\n"
        f"Try next: glesam-run {picture} --points 245,300 -o {folder}"
    )
