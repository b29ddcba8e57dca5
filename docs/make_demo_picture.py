"""Put the pictures that `make demo` wrote side by side: make_demo_picture.py FOLDER PICTURE."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

PANELS = {
    "photograph": "coins_overlay.png",
    "LQ-3": "coins_lq3.png",
    "without enhancer": "plain/coins_lq3_overlay.png",
    "with enhancer": "coins_lq3_overlay.png",
}
GAP, CAPTION, FONT = 8, 44, 32


def main(folder: Path, picture: Path) -> None:
    """Draw the panels in a row, each with its caption."""
    panels = {name: Image.open(folder / file).convert("RGB") for name, file in PANELS.items()}
    width, height = next(iter(panels.values())).size
    strip = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + CAPTION), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT)
    for index, (name, panel) in enumerate(panels.items()):
        left = index * (width + GAP)
        strip.paste(panel, (left, 0))
        pen.text((left + 2, height), name, fill=(40, 40, 40), font=font)
    strip.save(picture, quality=88)
    print(f"wrote {picture}, {picture.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
