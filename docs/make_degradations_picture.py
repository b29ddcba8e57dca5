"""Draw degradations.png and robustseg.png in docs/images, from photographs of scikit-image.

Run from anywhere: python docs/make_degradations_picture.py
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from skimage import data

from glesam_evaluation.degrade import UNSEEN, VISIBILITY, degrade, degrade_single
from glesam_runtime.staging import staged_file

Picture = npt.NDArray[np.uint8]

PLACE = Path(__file__).parent / "images"
COLUMNS = 4
TILE = (225, 300)  # height, width
GAP, CAPTION = 8, 26


def main() -> None:
    """Draw three photographs with four tiles each, and one with RobustSeg's fifteen."""
    # (top, left, height, width) of each crop: aspect 3 to 4, with the subject in the middle.
    chelsea = crop(data.chelsea(), 0, 30, 300, 400)
    coffee = crop(data.coffee(), 10, 70, 375, 500)
    astronaut = crop(data.astronaut(), 0, 0, 384, 512)
    rows = [*levels(chelsea, seed=2), *levels(coffee, seed=4), *singles(astronaut, VISIBILITY, 0.7)]
    draw(rows, PLACE / "degradations.png")
    draw(singles(astronaut, UNSEEN, 1.0), PLACE / "robustseg.png")


def draw(tiles: list[tuple[str, Picture]], place: Path) -> None:
    """Write a sheet of tiles with captions, four in a row."""
    height = GAP + -(-len(tiles) // COLUMNS) * (TILE[0] + CAPTION + GAP)
    width = GAP + COLUMNS * (TILE[1] + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    for number, (caption, tile) in enumerate(tiles):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * (TILE[1] + GAP), GAP + row * (TILE[0] + CAPTION + GAP)
        sheet.paste(Image.fromarray(tile), (x, y))
        pen.text((x + 2, y + TILE[0] + 3), caption, fill=(40, 40, 40), font=font)
    # Noise does not compress. 256 dithered colours reduce the file to a third.
    small = sheet.quantize(256, kmeans=3, dither=Image.Dither.FLOYDSTEINBERG)
    with staged_file(place) as partial:
        small.save(partial, format="PNG", optimize=True)


def crop(photograph: Picture, top: int, left: int, height: int, width: int) -> Picture:
    """Cut out a part and shrink it to a tile, uint8 [225,300,3]."""
    part = photograph[top : top + height, left : left + width]
    tile = cv2.resize(part, (TILE[1], TILE[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(tile, dtype=np.uint8)


def levels(tile: Picture, seed: int) -> list[tuple[str, Picture]]:
    """Return captions and pictures: clear, LQ-1, LQ-2 and LQ-3 of one seed."""
    degraded = [(f"LQ-{n}, seed {seed}", degrade(tile, n, seed)) for n in (1, 2, 3)]
    return [("clear", tile), *degraded]


def singles(tile: Picture, kinds: Iterable[str], severity: float) -> list[tuple[str, Picture]]:
    """Return captions and pictures: clear, and each single degradation of one severity."""
    degraded = [
        (f"{kind.replace('_', ' ')} {severity:g}", degrade_single(tile, kind, severity))
        for kind in kinds
    ]
    return [("clear", tile), *degraded]


if __name__ == "__main__":
    main()
