"""Segment a scene of 8,192 x 8,192 in tiles and in one look (`make large`).

The arguments are the folder to work in and, optionally, `prompts` or `everything` for one half. The
scene is 16 procedural scenes of 2,048 x 2,048 side by side, with the exact mask of each object; it
is written as a tiled GeoTIFF. Each run is a process of its own, whose peak of resident memory and
whose time are those that the system reports. The tables are those of docs/large.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glesam_evaluation.scenes import make_scene
from glesam_runtime import GleSamPredictor
from glesam_runtime.rle import decode_rle
from glesam_runtime.tiling.tiles import Grid
from glesam_runtime.tiling.window_files import open_windows
from glesam_runtime.tiling.windows import read_reduced

SIDE, PART, TILE, OVERLAP = 8192, 2048, 1024, 128
OBJECTS = 48
"""Number of objects that are prompted, evenly spaced among all."""
LEAST = 48 * 48
"""Objects of fewer visible pixels are left out."""
POINTS = "6"
"""Points along each side of a tile: 54 x 54 points over the picture, as tiles overlap."""
STRAIGHT = 32
"""Length in pixels of a piece of contour on a tile's border that counts as a visible seam."""
MEASURED = """
import os, subprocess, sys, time
start = time.perf_counter()
_, status, usage = os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)
print(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024,
      file=sys.stderr)
sys.exit(status != 0)
"""
"""Runs a command in a small process of its own, because a new process counts its parent's memory as
its own until it runs the command."""


def main() -> None:
    folder = Path(sys.argv[1])
    half = sys.argv[2] if len(sys.argv) > 2 else ""
    folder.mkdir(parents=True, exist_ok=True)
    picture, truth = folder / "scene.tif", folder / "truth.npy"
    if not truth.exists():
        make(picture, truth)
    instances = np.load(truth, mmap_mode="r")
    objects = boxes_of(instances)
    if half != "everything":
        chosen = list(objects)[:: max(1, len(objects) // OBJECTS)][:OBJECTS]
        prompts(folder, picture, instances, {value: objects[value] for value in chosen})
    if half != "prompts":
        everything(folder, picture, instances, objects)


def make(picture: Path, truth: Path) -> None:
    """Write the scene, and the map of its objects."""
    import rasterio

    instances = np.zeros((SIDE, SIDE), np.int32)
    profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3, "dtype": "uint8"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    with rasterio.open(picture, "w", photometric="rgb", **profile) as file:
        for number in range((SIDE // PART) ** 2):
            scene = make_scene(7_000 + number, PART, PART)
            y, x = (PART * each for each in divmod(number, SIDE // PART))
            window = ((y, y + PART), (x, x + PART))
            file.write(scene.image.transpose(2, 0, 1), window=window)
            place = instances[y : y + PART, x : x + PART]
            place[:] = np.where(scene.instances > 0, scene.instances + instances.max(), 0)
    np.save(truth, instances)


def boxes_of(instances: np.ndarray) -> dict[int, list[int]]:
    """Return x0, y0, x1, y1 of each object that is large enough."""
    found = {}
    for top in range(0, SIDE, PART):
        for left in range(0, SIDE, PART):
            part = np.asarray(instances[top : top + PART, left : left + PART])
            for value in np.unique(part[part > 0]).tolist():
                rows, columns = np.nonzero(part == value)
                if rows.size >= LEAST:
                    box = [columns.min() + left, rows.min() + top]
                    box += [columns.max() + 1 + left, rows.max() + 1 + top]
                    found[value] = [int(each) for each in box]
    return found


def run(folder: Path, name: str, picture: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Run glesam-run; return its image's entry, and its time and memory as cells of a table."""
    command = ["glesam-run", str(picture), "--json", "--no-files", *options]
    command += ["--backend", "onnxruntime"]
    with (folder / f"{name}.json").open("w") as out:
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *command],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
        )
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    seconds, busy, memory = map(float, done.stderr.split()[-3:])
    cells = f"{seconds:.0f} | {busy:.0f} | {memory:.0f}"
    document = json.loads((folder / f"{name}.json").read_text())
    return document["images"][0], cells


def iou_with(mask: dict[str, Any], box: list[int], truth: np.ndarray) -> float:
    """Return the IoU of a record with an object: its truth [h, w] lies at `box`."""
    found = decode_rle(mask["rle"])
    inside = found[box[1] : box[3], box[0] : box[2]]
    both = np.count_nonzero(inside & truth)
    return both / (mask["area"] + np.count_nonzero(truth) - both)


def prompts(
    folder: Path, picture: Path, instances: np.ndarray, objects: dict[int, list[int]]
) -> None:
    """Prompt each object with its box: in tiles, in one look, and in a crop of its own."""
    file = folder / "boxes.json"
    file.write_text(json.dumps([{"box": box} for box in objects.values()]))
    options = ("--prompts", str(file))
    tiled, tiled_cells = run(
        folder, "tiled", picture, *options, "--tile", str(TILE), "--overlap", str(OVERLAP)
    )
    whole, whole_cells = run(folder, "whole", picture, *options)
    grid = Grid(SIDE, SIDE, TILE, OVERLAP)
    windows, predictor = open_windows(picture), GleSamPredictor(backend="onnxruntime")
    rows, agreement, crossing = [], [], []
    for (value, box), one, other in zip(
        objects.items(), tiled["masks"], whole["masks"], strict=True
    ):
        truth = np.asarray(instances[box[1] : box[3], box[0] : box[2]]) == value
        x0, y0, x1, y1 = grid.window_around(tuple(map(float, box)), TILE)  # type: ignore[arg-type]
        factor = -(-(x1 - x0) // TILE)
        predictor.set_image(read_reduced(windows, (x0, y0, x1, y1), factor))
        own = predictor.predict(
            box=(np.asarray(box) - [x0, y0, x0, y0]) / factor, multimask_output=False
        )[0][0]
        large = np.asarray(
            Image.fromarray(own).resize((x1 - x0, y1 - y0), Image.Resampling.NEAREST)
        )
        crop = np.zeros((box[3] - box[1], box[2] - box[0]), bool)
        crop[:] = large[box[1] - y0 : box[3] - y0, box[0] - x0 : box[2] - x0]
        both = np.count_nonzero(crop & truth)
        own_iou = both / (np.count_nonzero(large) + np.count_nonzero(truth) - both)
        rows.append((iou_with(one, box, truth), iou_with(other, box, truth), own_iou))
        found = decode_rle(one["rle"])
        frame = np.zeros_like(found)
        frame[y0:y1, x0:x1] = large
        agreement.append(np.count_nonzero(found & frame) / np.count_nonzero(found | frame))
        crossing.append(not any(_holds(tile, box) for _, _, tile in grid.tiles()))
    table = np.asarray(rows)
    print(f"{len(rows)} objects, {sum(crossing)} of them across a seam or larger than a tile")
    print("| prompts | IoU with the truth | across seams | seconds | CPU seconds | MiB |")
    print("|---|---|---|---|---|---|")
    for index, (name, cells) in enumerate(
        (("tiles", tiled_cells), ("one look", whole_cells), ("own crops", " | | "))
    ):
        apart = table[np.asarray(crossing), index].mean()
        print(f"| {name} | {table[:, index].mean():.3f} | {apart:.3f} | {cells} |")
    values = np.asarray(agreement)
    print(f"IoU of tiles with own crops: mean {values.mean():.3f}, median {np.median(values):.3f}")


def everything(
    folder: Path, picture: Path, instances: np.ndarray, objects: dict[int, list[int]]
) -> None:
    """Find everything: in tiles, and in one look at the picture squeezed to the side of a tile."""
    tiles = ("--tile", str(TILE), "--overlap", str(OVERLAP))
    windows, small = open_windows(picture), folder / "squeezed.png"
    factor = SIDE // TILE
    Image.fromarray(read_reduced(windows, (0, 0, SIDE, SIDE), factor)).save(small)
    every = ("--everything", "--points-per-side")
    found = {
        "tiles": run(folder, "every", picture, *every, POINTS, *tiles),
        "one look at the squeezed picture": run(folder, "once", small, *every, "32"),
    }
    print("| everything | masks | found (IoU > 0.5) | mean IoU | seams | seconds | CPU s | MiB |")
    print("|---|---|---|---|---|---|---|---|")
    grid = Grid(SIDE, SIDE, TILE, OVERLAP)
    for name, (image, cells) in found.items():
        scale = SIDE // image["width"]
        best = best_ious(image["masks"], instances[::scale, ::scale], objects, scale)
        seams = "" if scale > 1 else sum(has_seam(mask, grid) for mask in image["masks"])
        share = np.mean(best > 0.5)
        print(
            f"| {name} | {len(image['masks'])} | {share:.3f} | {best.mean():.3f} | {seams} | "
            f"{cells} |"
        )


def best_ious(
    masks: list[dict[str, Any]], instances: np.ndarray, objects: dict[int, list[int]], scale: int
) -> np.ndarray:
    """Return for each object the IoU of the best mask, at the resolution of the masks."""
    areas, best = {}, dict.fromkeys(objects, 0.0)
    for value, box in objects.items():
        x0, y0, x1, y1 = (edge // scale for edge in box)
        areas[value] = np.count_nonzero(instances[y0 : y1 + 1, x0 : x1 + 1] == value)
    for mask in masks:
        x0, y0, x1, y1 = mask["box"]
        inside = decode_rle(mask["rle"])[y0:y1, x0:x1]
        values, counts = np.unique(instances[y0:y1, x0:x1][inside], return_counts=True)
        for value, both in zip(values.tolist(), counts.tolist(), strict=True):
            if value in best:
                iou = both / (mask["area"] + areas[value] - both)
                best[value] = max(best[value], iou)
    return np.asarray(list(best.values()))


def has_seam(mask: dict[str, Any], grid: Grid) -> bool:
    """Return whether a mask ends in a straight line on the border of a tile."""
    x0, y0, x1, y1 = mask["box"]
    found = decode_rle(mask["rle"])
    columns = {
        edge for part in grid.columns for edge in part if 0 < edge < SIDE and x0 <= edge <= x1
    }
    rows = {edge for part in grid.rows for edge in part if 0 < edge < SIDE and y0 <= edge <= y1}
    across = any(
        np.count_nonzero(found[y0:y1, edge] != found[y0:y1, edge - 1]) >= STRAIGHT
        for edge in columns
    )
    down = any(
        np.count_nonzero(found[edge, x0:x1] != found[edge - 1, x0:x1]) >= STRAIGHT for edge in rows
    )
    return across or down


def _holds(tile: tuple[int, int, int, int], box: list[int]) -> bool:
    return tile[0] <= box[0] and tile[1] <= box[1] and box[2] <= tile[2] and box[3] <= tile[3]


if __name__ == "__main__":
    main()
