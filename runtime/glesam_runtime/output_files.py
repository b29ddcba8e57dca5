"""Name and save the files that glesam-run writes for each image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from glesam_runtime.errors import InputError
from glesam_runtime.input_paths import resolved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.input_images import InputImage

_FAST = 2
"""PNG compression level of the overlay: a quarter of the default's time for a tenth more bytes."""


@dataclass(frozen=True)
class OutputFiles:
    """An input image and the names of the files that are written for it."""

    source: InputImage
    stem: Path
    """Folder and stem of the outputs, to which `_mask.png` and so on are added."""

    @property
    def image(self) -> Path:
        """Return the path of the image, or `stdin`, for messages."""
        return self.source.path

    def mask_path(self, index: int, count: int) -> Path:
        """Return `<stem>_mask.png` for a single mask, else `<stem>_mask_0.png` and so on.

        The numbers of more than ten masks have zeros in front, so that names sort in their order.
        """
        digits = len(str(count - 1))
        return self._with(f"_mask_{index:0{digits}}.png" if count > 1 else "_mask.png")

    @property
    def overlay_path(self) -> Path:
        """Return the path of the overlay, `<stem>_overlay.png`."""
        return self._with("_overlay.png")

    @property
    def instances_path(self) -> Path:
        """Return the path of the instance map, `<stem>_instances.png`."""
        return self._with("_instances.png")

    @property
    def colours_path(self) -> Path:
        """Return the path of the picture of an instance map of 16 bits."""
        return self._with("_instances_colours.png")

    def _with(self, ending: str) -> Path:
        return self.stem.with_name(self.stem.name + ending)


def plan_outputs(images: Sequence[InputImage], folder: Path) -> list[OutputFiles]:
    """Choose the output names of each image; a second image of the same stem gets `<stem>-2`."""
    taken: set[str] = set()
    planned = []
    for image in images:
        own = image.path.stem
        stem, number = own, 2
        while stem.lower() in taken:  # some file systems ignore case
            stem, number = f"{own}-{number}", number + 1
        taken.add(stem.lower())
        planned.append(OutputFiles(image, folder / stem))
    return planned


def refuse_inputs(files: OutputFiles, outputs: Iterable[Path], inputs: frozenset[Path]) -> None:
    """Refuse to overwrite an input image.

    Args:
        files: the image that is worked on.
        outputs: the files to be written for it.
        inputs: resolved paths of all input images.

    Raises:
        InputError: naming the first output that is an input.
    """
    for path in outputs:
        if resolved(path) in inputs:
            raise InputError(
                f"{files.image}: the output {path} is an input image; choose another folder with -o"
            )


def save_mask(mask: NDArray[np.bool_], path: Path) -> None:
    """Write a bool mask [H, W] as a PNG of 0 and 255."""
    Image.fromarray(mask.astype(np.uint8, order="C") * np.uint8(255)).save(path, "PNG")


def save_overlay(overlay: Image.Image, path: Path) -> None:
    """Write an overlay as a PNG."""
    overlay.save(path, "PNG", compress_level=_FAST)
