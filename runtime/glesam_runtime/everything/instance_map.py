"""Draw and save the instance map and the overlay of everything in an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from glesam_runtime.draw import colour_of, draw_mask, draw_number
from glesam_runtime.output_files import OutputFiles, save_overlay
from glesam_runtime.rle import run_area, runs_to_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.everything.search import Found

PALETTE_OBJECTS = 254
"""Most masks of a map with a palette. In such maps 255 means pixels to ignore, as in PASCAL VOC and
in the datasets of glesam-train and glesam-evaluate."""


def draw_everything(
    image: NDArray[np.uint8], found: Sequence[Found], check: Callable[[], None]
) -> tuple[NDArray[np.uint16], Image.Image]:
    """Draw the instance map and the overlay; a small mask lies on top of a larger one.

    Args:
        image: uint8 [H, W, 3].
        found: the masks of the image.
        check: called before each mask; it may raise to stop the work.

    Returns:
        The instance map uint16 [H, W], 0 where there is no mask and i + 1 on mask i, and the RGB
        overlay with each mask in its own colour and its number in it.
    """
    height, width = image.shape[:2]
    instances = np.zeros((height, width), np.uint16)
    canvas = Image.fromarray(image)
    areas = [run_area(one.runs) for one in found]
    for index in sorted(range(len(found)), key=lambda index: -areas[index]):
        check()
        mask = runs_to_mask(found[index].runs, height, width)
        instances[mask] = index + 1
        draw_mask(canvas, mask, colour_of(index))
    for index, one in enumerate(found):
        check()
        x0, y0, x1, y1 = one.box
        window = np.s_[y0 : y1 + 1, x0 : x1 + 1]
        visible = instances[window] == index + 1
        if not visible.any():  # other masks lie on all of it
            visible = runs_to_mask(one.runs, height, width)[window]
        draw_number(canvas, index + 1, visible, (x0, y0))
    return instances, canvas


def save_instances(
    instances: NDArray[np.uint16],
    count: int,
    place_for: Callable[[Path], Path],
    files: OutputFiles,
) -> bool:
    """Write the instance map as a PNG that viewers show.

    A map of at most `PALETTE_OBJECTS` masks has 8 bits per pixel and a palette of the overlay's
    colours. A map of more has 16 bits per pixel, and a picture of it in colours is written beside
    it.

    Args:
        instances: uint16 [H, W].
        count: number of masks.
        place_for: returns the path to write a file to.
        files: the names of the files.

    Returns:
        Whether the picture in colours was written.
    """
    colours = np.asarray([(0, 0, 0), *(colour_of(index) for index in range(count))], np.uint8)
    place = place_for(files.instances_path)
    if count <= PALETTE_OBJECTS:
        paletted = Image.fromarray(instances.astype(np.uint8), "L")
        paletted.putpalette(colours.tobytes())
        paletted.save(place, "PNG")
        return False
    Image.fromarray(instances).save(place, "PNG")
    save_overlay(Image.fromarray(colours[instances]), place_for(files.colours_path))
    return True
