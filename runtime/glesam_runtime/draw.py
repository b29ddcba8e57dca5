"""Draw masks, numbers, points and boxes over an image; all scale with the image."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from glesam_runtime.masks import mask_to_xywh

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.prompt_requests import PromptRequest

Colour = tuple[int, int, int]

_PALETTE: tuple[Colour, ...] = (
    (30, 144, 255),
    (255, 159, 28),
    (168, 85, 247),
    (20, 184, 166),
    (236, 72, 153),
    (234, 214, 30),
    (99, 102, 241),
    (132, 204, 22),
)
_GOLDEN_RATIO = 0.618034
_WHITE: Colour = (255, 255, 255)
_BLACK: Colour = (0, 0, 0)
_POINT: dict[bool, Colour] = {True: (34, 197, 94), False: (239, 68, 68)}
_TINT = 0.45
_SMOOTH = 4
"""Dots are drawn this many times larger and scaled down, because Pillow does not antialias."""
_LARGEST = 1 << 15
"""A side in pixels. A dot for an image 1,200,000 pixels wide would take 30 GB."""


def colour_of(index: int) -> Colour:
    """Return the RGB colour of mask `index`: from a palette first, then evenly spread hues."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    red, green, blue = colorsys.hsv_to_rgb(index * _GOLDEN_RATIO % 1, 0.75, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_mask(canvas: Image.Image, mask: NDArray[np.bool_], colour: Colour) -> None:
    """Tint a mask's area and draw its contour, in place.

    Args:
        canvas: RGB image of the mask's size.
        mask: bool [H, W].
        colour: RGB colour of the tint.
    """
    left, top, width, height = mask_to_xywh(mask)
    if width == 0:
        return
    # Work only around the mask: an image may have hundreds of them, most of them small.
    blur = _line(canvas) * 0.75
    margin = math.ceil(4 * blur) + 1
    x0, y0 = max(0, left - margin), max(0, top - margin)
    window = mask[y0 : top + height + margin, x0 : left + width + margin]
    area = Image.fromarray(window.astype(np.uint8, order="C") * np.uint8(255))
    canvas.paste(colour, (x0, y0), area.point([round(value * _TINT) for value in range(256)]))
    # A blurred mask crosses one half exactly at the contour. This gives a smooth line, and its cost
    # does not depend on the width.
    soft = area.filter(ImageFilter.GaussianBlur(blur))
    canvas.paste(_WHITE, (x0, y0), soft.point([_ridge(value) for value in range(256)]))


def draw_number(
    canvas: Image.Image, number: int, visible: NDArray[np.bool_], corner: tuple[int, int]
) -> None:
    """Write a mask's number where the mask is seen, in place: at its pixel nearest to its centre.

    Args:
        canvas: RGB image.
        number: the number.
        visible: bool [h, w], the pixels of the mask that are seen, at least one.
        corner: (x, y) of the first of these pixels in the image.
    """
    rows, columns = np.nonzero(visible)
    far = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
    nearest = int(np.argmin(far))
    place = (corner[0] + int(columns[nearest]), corner[1] + int(rows[nearest]))
    size = max(12, round(_extent(canvas) / 36))
    pen = ImageDraw.Draw(canvas)
    pen.text(
        place,
        str(number),
        fill=_WHITE,
        font=ImageFont.load_default(size),
        anchor="mm",
        stroke_width=max(1, size // 10),
        stroke_fill=_BLACK,
    )


def draw_prompt(canvas: Image.Image, prompt: PromptRequest, colour: Colour) -> None:
    """Draw a prompt's box and points: green for the object, red for the background."""
    if prompt.box is not None:
        _draw_box(canvas, prompt.box, colour)
    for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
        _draw_dot(canvas, x, y, _POINT[label == 1])


def overlay(
    image: NDArray[np.uint8],
    masks: Sequence[NDArray[np.bool_]],
    prompts: Sequence[PromptRequest],
) -> Image.Image:
    """Draw the mask of each prompt and then the prompts over an image.

    Args:
        image: uint8 [H, W, 3], RGB.
        masks: one bool mask [H, W] for each prompt.
        prompts: the prompts, in the order of the masks.
    """
    canvas = Image.fromarray(image)
    for index, mask in enumerate(masks):
        draw_mask(canvas, mask, colour_of(index))
    for index, prompt in enumerate(prompts):
        draw_prompt(canvas, prompt, colour_of(index))
    return canvas


def _line(canvas: Image.Image) -> float:
    """Return the line width in pixels: 1/400 of the image's longer side, at least 1.5."""
    return max(1.5, _extent(canvas) / 400)


def _extent(canvas: Image.Image) -> int:
    """Return the longer side in pixels, or the side from which lines and dots no longer grow."""
    return min(max(canvas.size), _LARGEST)


def _ridge(value: int) -> int:
    """Return the contour's opacity where the blurred mask is `value`: full near one half."""
    nearness = 1 - abs(2 * value / 255 - 1)
    return round(255 * min(1.0, max(0.0, 2 * nearness - 0.5)))


def _draw_box(canvas: Image.Image, box: tuple[float, float, float, float], colour: Colour) -> None:
    """Draw a frame with a thin white rim, which is visible on any background."""
    width = max(2, round(_line(canvas)))
    rim = max(1, width // 3)
    pen = ImageDraw.Draw(canvas)
    x0, y0, x1, y1 = (round(value) for value in box)
    pen.rectangle((x0 - rim, y0 - rim, x1 + rim, y1 + rim), outline=_WHITE, width=width + 2 * rim)
    pen.rectangle((x0, y0, x1, y1), outline=colour, width=width)


def _draw_dot(canvas: Image.Image, x: float, y: float, colour: Colour) -> None:
    """Draw a disc with a white edge and a faint shadow, centred on the pixel."""
    radius = max(4, round(_extent(canvas) / 110))
    side = 2 * radius + 1
    large = side * _SMOOTH
    patch = Image.new("RGBA", (large, large), (0, 0, 0, 0))
    pen = ImageDraw.Draw(patch)
    for fill, inset in (((0, 0, 0, 90), 0.0), ((*_WHITE, 255), 0.1), ((*colour, 255), 0.32)):
        edge = inset * radius * _SMOOTH
        pen.ellipse((edge, edge, large - 1 - edge, large - 1 - edge), fill=fill)
    patch = patch.resize((side, side), Image.Resampling.LANCZOS)
    canvas.paste(patch, (round(x) - radius, round(y) - radius), patch)
