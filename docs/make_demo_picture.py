"""Makes docs/images/demo.jpg from what `make demo` left in out/demo."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PANELS = ("coins.png", "coins_overlay.png", "coins_lq3.png", "coins_lq3_overlay.png")
GAP = 8


def main() -> None:
    """Put the four panels side by side."""
    panels = [Image.open(ROOT / "out" / "demo" / name).convert("RGB") for name in PANELS]
    width, height = panels[0].size
    strip = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height), "white")
    for index, panel in enumerate(panels):
        strip.paste(panel, (index * (width + GAP), 0))
    target = ROOT / "docs" / "images" / "demo.jpg"
    strip.save(target, quality=88)
    print(f"wrote {target.relative_to(ROOT)}, {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
