"""Make the runtime's sample picture: a procedural scene, degraded at level LQ-2.

Usage: make_sample.py PICTURE. The runtime's is runtime/glesam_runtime/sample/sample.jpg.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from glesam_evaluation.degrade import degrade
from glesam_evaluation.scenes import make_scene

SEED, LEVEL = 26, 2
HEIGHT, WIDTH = 384, 512
SHAPES, MIN_VISIBLE = (5, 9), 0.01
JPEG_QUALITY = 90


def main(picture: Path) -> None:
    """Write the picture."""
    scene = make_scene(SEED, HEIGHT, WIDTH, shapes=SHAPES, min_visible=MIN_VISIBLE)
    degraded = degrade(scene.image, LEVEL, SEED)
    Image.fromarray(degraded).save(picture, quality=JPEG_QUALITY, subsampling=0)
    print(f"wrote {picture}, {picture.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
