"""Make procedural scenes with exact instance masks: dead leaves with texture and light.

Shapes of many sizes lie on top of each other like leaves on a forest floor (the dead-leaves model:
J. Serra 1982; A. B. Lee, D. Mumford, J. Huang 2001). Their edges, sizes and occlusions have the
statistics of natural images. A seed fully determines a scene, and no file is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from glesam_evaluation.outlines import Outline, random_outline
from glesam_evaluation.seeds import generator
from glesam_evaluation.textures import FloatImage, Palette, noise_field, random_texture
from glesam_runtime.errors import InputError

MIN_SIDE, MAX_SIDE = 16, 8192


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its instances.

    `image` is uint8 RGB [H,W,3]. `instances` is int32 [H,W]: 0 is background, and 1..K is the
    instance that is visible there, numbered from the lowest to the highest (K lies on top). Masks
    are exact geometry. The edges in the image are as soft as a lens makes them, well below a pixel.
    """

    image: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int32]

    @property
    def count(self) -> int:
        """Return the number of instances K. There is at least 1, and each is visible somewhere."""
        return int(self.instances.max())

    @property
    def masks(self) -> npt.NDArray[np.bool_]:
        """Return the visible part of each instance, bool [K,H,W]: disjoint, and none is empty."""
        ids = np.arange(1, self.count + 1, dtype=np.int32)
        masks: npt.NDArray[np.bool_] = self.instances[None] == ids[:, None, None]
        return masks


@dataclass(frozen=True, eq=False)
class _Leaf:
    """A rasterised shape: its bounding box in the image, and the pixels it covers there."""

    rows: slice
    columns: slice
    covered: npt.NDArray[np.bool_]
    radius: float


def make_scene(
    seed: int,
    height: int = 256,
    width: int = 256,
    *,
    shapes: tuple[int, int] = (8, 24),
    min_visible: float = 0.001,
) -> Scene:
    """Make the scene of a seed.

    Args:
        seed: a whole number >= 0; the same arguments give the same bytes on one machine.
        height: height of the image, 16 to 8192 pixels.
        width: width of the image, 16 to 8192 pixels.
        shapes: minimum and maximum number of shapes. Shapes that end up hidden are removed.
        min_visible: smallest visible part of an instance, as a share of the image's area.

    Raises:
        InputError: an argument is outside its range.
    """
    _check(height, width, shapes, min_visible)
    rng = generator(seed)
    outlines = _lay_down(rng, height, width, int(rng.integers(*shapes, endpoint=True)))
    leaves = [_rasterise(outline, height, width) for outline in outlines]
    leaves = _visible(leaves, height, width, min_visible)
    image = _paint(rng, leaves, height, width)
    return Scene(image=_photograph(rng, image), instances=_instances(leaves, height, width))


def _check(height: int, width: int, shapes: tuple[int, int], min_visible: float) -> None:
    if not (MIN_SIDE <= height <= MAX_SIDE and MIN_SIDE <= width <= MAX_SIDE):
        raise InputError(
            f"scene of {width}x{height} pixels: each side must be {MIN_SIDE} to {MAX_SIDE}"
        )
    if not 1 <= shapes[0] <= shapes[1]:
        raise InputError(f"shapes {shapes}: must be (fewest, most) with 1 <= fewest <= most")
    if not 0 <= min_visible < 1:
        raise InputError(f"min_visible {min_visible!r}: must lie in [0, 1)")


def _lay_down(rng: np.random.Generator, height: int, width: int, count: int) -> list[Outline]:
    """Draw outlines, ordered from the lowest to the highest."""
    outlines = [random_outline(rng, height, width) for _ in range(count)]
    # Large shapes tend to lie below, or they would hide the rest; the random factor allows
    # exceptions.
    order = np.argsort([-outline.radius * rng.lognormal(0, 0.6) for outline in outlines])
    return [outlines[index] for index in order]


def _rasterise(outline: Outline, height: int, width: int) -> _Leaf:
    stamp = np.zeros((height, width), dtype=np.uint8)
    # fillPoly uses the even-odd rule, so the second contour is a hole in the first.
    cv2.fillPoly(stamp, [np.rint(c).astype(np.int32) for c in outline.contours], 1)
    x, y, w, h = cv2.boundingRect(stamp)
    rows, columns = slice(y, y + h), slice(x, x + w)
    return _Leaf(rows, columns, stamp[rows, columns] > 0, outline.radius)


def _instances(leaves: list[_Leaf], height: int, width: int) -> npt.NDArray[np.int32]:
    instances = np.zeros((height, width), dtype=np.int32)
    for number, leaf in enumerate(leaves, start=1):
        instances[leaf.rows, leaf.columns][leaf.covered] = number
    return instances


def _visible(leaves: list[_Leaf], height: int, width: int, min_visible: float) -> list[_Leaf]:
    """Remove hidden leaves. The others stay visible, because a removal only uncovers pixels."""
    ids = _instances(leaves, height, width)
    areas = np.bincount(ids.ravel(), minlength=len(leaves) + 1)[1:]
    least = max(1.0, min_visible * height * width)
    kept = [leaf for leaf, area in zip(leaves, areas, strict=True) if area >= least]
    return kept or [leaves[int(areas.argmax())]]


def _paint(rng: np.random.Generator, leaves: list[_Leaf], height: int, width: int) -> FloatImage:
    """Paint the background, then the leaves from the lowest up; float32 [H,W,3] around [0, 1]."""
    noise = noise_field(rng, height, width)
    palette = Palette.random(rng)
    light = float(rng.uniform(0, 2 * np.pi))
    canvas = random_texture(rng, noise, palette, height, width, scale=min(height, width) / 3)
    for leaf in leaves:
        _cast_shadow(rng, canvas, leaf, light)
        patch = canvas[leaf.rows, leaf.columns]
        h, w = leaf.covered.shape
        surface = random_texture(rng, noise, palette, h, w, scale=leaf.radius)
        surface *= _shading(rng, leaf, light)[..., None]
        patch[leaf.covered] = surface[leaf.covered]
    return canvas


def _shading(rng: np.random.Generator, leaf: _Leaf, light: float) -> npt.NDArray[np.float32]:
    """Return the brightness of a leaf's bounding box: lit from one side and shaded at the edge."""
    h, w = leaf.covered.shape
    x = np.linspace(-1, 1, w, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
    tilt = np.float32(rng.uniform(0, 0.35))
    brightness = 1 - tilt * (x * np.float32(np.cos(light)) + y * np.float32(np.sin(light)))
    # A border of zeros gives a shape an edge where the bounding box cuts it off.
    padded = np.pad(leaf.covered.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    rounding = np.float32(rng.uniform(0, 0.5))
    width = np.float32(max(1.0, leaf.radius * rng.uniform(0.08, 0.3)))
    return np.asarray(brightness * (1 - rounding * np.exp(-depth / width)), dtype=np.float32)


def _cast_shadow(rng: np.random.Generator, canvas: FloatImage, leaf: _Leaf, light: float) -> None:
    """Darken the canvas in place with the soft shadow of a leaf, away from the light."""
    strength = float(rng.uniform(0, 0.55))
    height, width = canvas.shape[:2]
    softness = max(0.8, leaf.radius * 0.08)
    offset = softness * float(rng.uniform(0.5, 2))
    # The window holds the leaf, the offset of its shadow and a margin of three sigmas of softness.
    margin = int(np.ceil(3 * softness + offset))
    top, left = max(0, leaf.rows.start - margin), max(0, leaf.columns.start - margin)
    bottom, right = min(height, leaf.rows.stop + margin), min(width, leaf.columns.stop + margin)
    shade = np.zeros((bottom - top, right - left), dtype=np.float32)
    dy, dx = leaf.rows.start - top, leaf.columns.start - left
    shade[dy : dy + leaf.covered.shape[0], dx : dx + leaf.covered.shape[1]] = leaf.covered
    shift = np.array(
        [[1, 0, offset * np.cos(light)], [0, 1, offset * np.sin(light)]], dtype=np.float32
    )
    shade = cv2.warpAffine(shade, shift, (right - left, bottom - top))
    shade = cv2.GaussianBlur(shade, (0, 0), softness)
    canvas[top:bottom, left:right] *= (1 - np.float32(strength) * shade)[..., None]


def _photograph(rng: np.random.Generator, canvas: FloatImage) -> npt.NDArray[np.uint8]:
    """Apply exposure, soften the sharp edges as a lens does, and add sensor noise."""
    height, width = canvas.shape[:2]
    exposed = canvas * np.float32(rng.uniform(0.9, 1.3))
    seen = cv2.GaussianBlur(exposed, (0, 0), float(rng.uniform(0.35, 0.8)))
    noise = rng.standard_normal((height, width, 3), dtype=np.float32)
    seen = np.asarray(seen) + noise * np.float32(rng.uniform(0, 0.02))
    image: npt.NDArray[np.uint8] = np.rint(np.clip(seen, 0, 1) * 255).astype(np.uint8)
    return image
