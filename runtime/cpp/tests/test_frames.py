"""Camera formats give the encoder the bytes of the frame that was converted to RGB first."""

from __future__ import annotations

import itertools
import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from glesam_runtime import GleSamPredictor
from glesam_runtime.image import preprocess

FORMATS = ("rgb", "bgr", "rgba", "bgra", "gray", "nv12", "i420")
SIZES = ((1, 1), (2, 2), (1, 7), (9, 1), (3, 5), (31, 17), (64, 33), (45, 90))
"""Height and width."""
STRIDES = ("tight", "padded", "bottom-up", "bottom-up and padded")
MATRICES = {
    "bt601": (Fraction(299, 1000), Fraction(114, 1000)),
    "bt709": (Fraction(2126, 10000), Fraction(722, 10000)),
    "bt2020": (Fraction(2627, 10000), Fraction(593, 10000)),
}
"""Kr and Kb of the recommendations ITU-R BT.601, BT.709 and BT.2020."""
RANGES = ("limited", "full")

Bytes = NDArray[np.uint8]


def yuv_to_rgb(yuv: Bytes, matrix: str, range_: str) -> Bytes:
    """Convert [..., 3] by the recommendation's equations, in whole numbers without rounding.

    The equations say Y from R, G and B; those for R, G and B follow from them.
    """
    kr, kb = MATRICES[matrix]
    kg = 1 - kr - kb
    luma = (Fraction(255, 219), 16) if range_ == "limited" else (Fraction(1), 0)
    chroma = Fraction(255, 224) if range_ == "limited" else Fraction(1)
    rows = (
        (luma[0], Fraction(0), 2 * (1 - kr) * chroma),
        (luma[0], -2 * (1 - kb) * kb / kg * chroma, -2 * (1 - kr) * kr / kg * chroma),
        (luma[0], 2 * (1 - kb) * chroma, Fraction(0)),
    )
    values = yuv.astype(np.int64) - np.array([luma[1], 128, 128])
    channels = []
    for row in rows:
        unit = int(np.lcm.reduce([each.denominator for each in row]))
        exact = values @ np.array([int(each * unit) for each in row])  # in units of 1 / unit
        channels.append((2 * exact + unit) // (2 * unit))
    return np.clip(np.stack(channels, axis=-1), 0, 255).astype(np.uint8)


@dataclass
class Memory:
    """A block of memory in which planes lie with bytes between them that no reader may use."""

    content: list[Bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    strides: list[int] = field(default_factory=list)

    def add(self, plane: Bytes, stride: str, rng: np.random.Generator) -> None:
        """Store a plane [rows, bytes of a row]."""
        rows, row = plane.shape
        excess = int(rng.integers(1, 9)) if "padded" in stride else 0
        stored = rng.integers(0, 256, (rows, row + excess), dtype=np.uint8)
        stored[:, :row] = plane[::-1] if "bottom-up" in stride else plane
        begin = sum(each.size for each in self.content)
        step = row + excess
        # The last row ends with its last pixel, so that a sanitizer sees a read of the next byte.
        self.content.append(stored.ravel()[: stored.size - excess])
        if "bottom-up" in stride:
            self.offsets.append(begin + (rows - 1) * step)
            self.strides.append(-step)
        else:
            self.offsets.append(begin)
            self.strides.append(0 if stride == "tight" else step)


@dataclass(frozen=True)
class Drawn:
    """A frame and its RGB pixels."""

    tensors: dict[str, NDArray[np.generic]]
    rgb: Bytes


def draw(
    index: int,
    name: str,
    size: tuple[int, int],
    stride: str,
    matrix: str = "bt601",
    range_: str = "limited",
    run: bool = False,
) -> Drawn:
    """Return frame `index`, of random bytes. Each second one is only partly the image."""
    rng = np.random.default_rng(index)
    height, width = size
    half = (height + 1) // 2, (width + 1) // 2
    memory = Memory()
    if name in ("nv12", "i420"):
        luma = rng.integers(0, 256, size, dtype=np.uint8)
        u, v = rng.integers(0, 256, (2, *half), dtype=np.uint8)
        memory.add(luma, stride, rng)
        if name == "nv12":
            memory.add(np.stack([u, v], axis=-1).reshape(half[0], -1), stride, rng)
        else:
            memory.add(u, stride, rng)
            memory.add(v, stride, rng)
        wide = (each.repeat(2, 0).repeat(2, 1)[:height, :width] for each in (u, v))
        rgb = yuv_to_rgb(np.stack([luma, *wide], axis=-1), matrix, range_)
    else:
        channels = 1 if name == "gray" else len(name)
        pixels = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        memory.add(pixels.reshape(height, -1), stride, rng)
        order = [0, 0, 0] if name == "gray" else [name.index(letter) for letter in "rgb"]
        rgb = pixels[..., order]
    region = [0, 0, 0, 0]
    if index % 2:
        top, left = (int(rng.integers(0, side)) for side in size)
        bottom = int(rng.integers(top, height)) + 1
        right = int(rng.integers(left, width)) + 1
        region = [left, top, right - left, bottom - top]
        rgb = rgb[top:bottom, left:right]
    planes = [*memory.offsets, 0, 0][:3], [*memory.strides, 0, 0][:3]
    numbers = [FORMATS.index(name), width, height, *planes[0], *planes[1], *region]
    numbers += [list(MATRICES).index(matrix), RANGES.index(range_), run, 0, 0]
    tensors: dict[str, NDArray[np.generic]] = {
        "memory": np.concatenate(memory.content),
        "layout": np.array(numbers, np.int64),
    }
    return Drawn(tensors, np.ascontiguousarray(rgb))


def results_of(
    frames: list[Drawn], bundle: Path, program: Path, folder: Path
) -> dict[str, NDArray[np.generic]]:
    """Run a program on frames."""
    given = {
        f"{i}.{name}": tensor
        for i, frame in enumerate(frames)
        for name, tensor in frame.tensors.items()
    }
    save_file(given, folder / "cases")
    subprocess.run([program, bundle, folder / "cases", folder / "results"], check=True)
    return dict(load_file(folder / "results"))


def test_every_format_is_as_converted_first(nano: Path, programs: Path, tmp_path: Path) -> None:
    compare_with_python(nano, programs / "frames", tmp_path)


def compare_with_python(bundle: Path, program: Path, folder: Path) -> None:
    """Compare tensors of all formats, odd sizes and strides with Python's, bit by bit."""
    layouts = itertools.product(FORMATS, SIZES, STRIDES)
    frames = [draw(i, *layout) for i, layout in enumerate(layouts)]
    kinds = itertools.product(("nv12", "i420"), MATRICES, RANGES)
    # Enough random pixels for each term to meet each other, and an odd number of frames between.
    frames += [
        draw(2 * i, name, (255, 257), "padded", matrix, range_)
        for i, (name, matrix, range_) in enumerate(kinds)
    ]
    found = results_of(frames, bundle, program, folder)
    rules = GleSamPredictor(bundle, backend="openvino").bundle.manifest.preprocessing
    for i, frame in enumerate(frames):
        tensor = preprocess(frame.rgb, rules).tensor
        np.testing.assert_array_equal(
            found[f"{i}.tensor"].view(np.uint32), tensor.view(np.uint32), err_msg=str(i)
        )
    print(f"{len(frames)} frames")


def test_masks_are_those_of_the_region(nano: Path, programs: Path, tmp_path: Path) -> None:
    frames = [draw(2 * i + 1, name, (70, 91), "padded", run=True) for i, name in enumerate(FORMATS)]
    found = results_of(frames, nano, programs / "frames", tmp_path)
    predictor = GleSamPredictor(nano, backend="openvino")
    for i, frame in enumerate(frames):
        height, width = frame.rgb.shape[:2]
        predictor.set_image(frame.rgb)
        masks, _, _ = predictor.predict(box=[0, 0, width, height], multimask_output=False)
        np.testing.assert_array_equal(found[f"{i}.masks"], masks[0])


@pytest.mark.parametrize("matrix", MATRICES)
def test_the_formula_is_the_known_one(matrix: str) -> None:
    # Pillow's conversion is BT.601 in the full range, with tables that round on the way.
    rng = np.random.default_rng(0)
    yuv = rng.integers(0, 256, (1, 4000, 3), dtype=np.uint8)
    if matrix == "bt601":
        pillow = np.asarray(Image.fromarray(yuv, "YCbCr").convert("RGB"))
        difference = yuv_to_rgb(yuv, matrix, "full").astype(int) - pillow
        assert np.abs(difference).max() <= 1
    # Black, white and the brightest red of the limited range, as the recommendations say them.
    known = np.array([[16, 128, 128], [235, 128, 128]], np.uint8)
    np.testing.assert_array_equal(
        yuv_to_rgb(known, matrix, "limited"), [[0, 0, 0], [255, 255, 255]]
    )
    kr, kb = (float(each) for each in MATRICES[matrix])
    red = [round(16 + 219 * kr), round(128 - 112 * kr / (1 - kb)), 240]
    np.testing.assert_allclose(
        yuv_to_rgb(np.array(red, np.uint8), matrix, "limited"), [255, 0, 0], atol=2
    )
