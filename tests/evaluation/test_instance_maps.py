"""The instance maps of glesam-run show colours in a viewer, and datasets read them as masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_evaluation.datasets.mask_files import read_masks
from glesam_runtime.draw import colour_of, draw_number
from glesam_runtime.everything.crops import Crop
from glesam_runtime.everything.instance_map import draw_everything, save_instances
from glesam_runtime.everything.search import Found
from glesam_runtime.input_images import InputImage
from glesam_runtime.output_files import OutputFiles
from glesam_runtime.rle import count_runs

SIDE, GAP = 6, 2


def squares(count: int) -> np.ndarray:
    """Return the numbers 1 to count, each on a square of its own."""
    columns = 20
    rows = -(-count // columns)
    numbers = np.arange(1, rows * columns + 1).reshape(rows, columns)
    numbers[numbers > count] = 0
    cell = np.zeros((SIDE + GAP, SIDE + GAP), np.int64)
    cell[:SIDE, :SIDE] = 1
    return np.kron(numbers, cell).astype(np.uint16)


@pytest.mark.parametrize("count", [0, 1, 253, 254, 255, 256, 300])
def test_the_map_by_its_number_of_masks(count: int, tmp_path: Path) -> None:
    files = OutputFiles(InputImage(tmp_path / "a.png"), tmp_path / "a")
    ids = squares(max(count, 1)) * np.uint16(count > 0)
    written = save_instances(ids, count, lambda path: path, files)
    assert written is (count > 254) is files.colours_path.exists()
    with Image.open(files.instances_path) as image:
        assert image.mode == ("I;16" if written else "P")
        np.testing.assert_array_equal(np.asarray(image), ids)
        shown = image
        if written:
            shown = Image.open(files.colours_path)
        colours = np.asarray(shown.convert("RGB"))
    wanted = np.asarray([(0, 0, 0), *(colour_of(index) for index in range(count))], np.uint8)
    np.testing.assert_array_equal(colours, wanted[ids])
    assert len(np.unique(wanted[:256], axis=0)) == len(wanted[:256])
    masks = read_masks(files.instances_path)
    np.testing.assert_array_equal(masks, ids[None] == np.arange(1, count + 1)[:, None, None])


def test_a_number_lies_on_the_visible_part_of_its_mask() -> None:
    height, width = 120, 160
    outer, inner = np.zeros((2, height, width), np.bool_)
    outer[10:110, 10:150] = True
    inner[20:100, 20:120] = True  # covers the centre of the outer one
    crop = Crop((0, 0, width, height), 0)
    found = [
        Found(count_runs(mask), (0, 0, width - 1, height - 1), 0.9, 0.9, (1, 1), crop)
        for mask in (outer, inner)
    ]
    photo = np.full((height, width, 3), 90, np.uint8)
    instances, overlay = draw_everything(photo, found, lambda: None)
    assert set(np.unique(instances)) == {0, 1, 2}
    white = (np.asarray(overlay) > 180).all(axis=2)
    plain = draw_everything(photo, [], lambda: None)[1]
    np.testing.assert_array_equal(np.asarray(plain), photo)
    # Around the nearest visible pixel to each centre there are white digits with a black edge.
    black = (np.asarray(overlay) < 40).all(axis=2)
    for index in (1, 2):
        rows, columns = np.nonzero(instances == index)
        far = (rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2
        y, x = rows[far.argmin()], columns[far.argmin()]
        assert white[y - 6 : y + 7, x - 6 : x + 7].any()
        assert black[y - 8 : y + 9, x - 8 : x + 9].any()


def test_numbers_differ_and_grow_with_the_image() -> None:
    heights = []
    for side in (200, 2000):
        canvases = [Image.new("RGB", (side, side), (90, 90, 90)) for _ in range(2)]
        for number, canvas in enumerate(canvases, 7):
            draw_number(canvas, number, np.ones((1, 1), np.bool_), (side // 2, side // 2))
        first, second = map(np.asarray, canvases)
        assert (first != second).any()
        rows = np.flatnonzero((first != 90).any(axis=(1, 2)))
        heights.append(len(rows))
        assert abs(rows.mean() - side / 2) < side / 50
    assert heights[1] > 2 * heights[0]
