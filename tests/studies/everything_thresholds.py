"""Measure which thresholds `--everything` needs with a bundle, for docs/nano.md.

Usage: python -m tests.studies.everything_thresholds [BUNDLE]. The default is the built-in nano.

Every point of the grid is decoded once; the thresholds are then applied to the same candidates.
Each setting is judged by COCO's class-agnostic AP (IoU 0.50 to 0.95) and AR with pycocotools, on
the sample picture, scikit-image's coins and procedural scenes whose truth is known.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.studies import make_sample

from glesam_evaluation.datasets import SceneDataset
from glesam_evaluation.scenes import make_scene
from glesam_runtime import GleSamPredictor, sample_image
from glesam_runtime.everything.grids import even_grid
from glesam_runtime.everything.search import non_maximum_suppression
from glesam_runtime.prompts import FOREGROUND, PromptBatch
from glesam_training.nano.coins import Coins

POINTS_PER_SIDE = 32
BATCH = 64
OFFSETS = (1.0, 0.5, 0.25)
IOU_THRESHOLDS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.88)
STABILITY_THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
SCENES, HELD_OUT = 12, 900_000_000
BOX_NMS = 0.7


@dataclass(frozen=True)
class Candidates:
    """All masks that the grid of one image gives, N of them, and the image's true masks."""

    rles: list[dict[str, Any]]
    boxes: NDArray[np.float64]
    """[N, 4], x0, y0, x1, y1."""
    scores: NDArray[np.float32]
    """[N] predicted IoU."""
    stability: dict[float, NDArray[np.float32]]
    """[N] for each offset."""
    truth: list[dict[str, Any]]


def pictures() -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.bool_]]]:
    """Yield the group, the image and the true masks [M, H, W] of each picture."""
    scene = make_scene(
        make_sample.SEED,
        make_sample.HEIGHT,
        make_sample.WIDTH,
        shapes=make_sample.SHAPES,
        min_visible=make_sample.MIN_VISIBLE,
    )
    ids = np.unique(scene.instances)
    yield "sample", sample_image(), np.stack([scene.instances == one for one in ids if one])
    coins = Coins()[0]
    yield "coins", coins.image, coins.masks
    for sample in (SceneDataset(SCENES, HELD_OUT)[index] for index in range(SCENES)):
        yield "scenes", sample.image, sample.masks


def encoded(masks: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the COCO RLE of masks [N, H, W]."""
    return list(coco.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))))


def candidates(
    predictor: GleSamPredictor, image: NDArray[np.uint8], truth: NDArray[np.bool_]
) -> Candidates:
    """Decode every point of the grid."""
    predictor.set_image(image)
    points = even_grid(POINTS_PER_SIDE) * [image.shape[1], image.shape[0]]
    rles: list[dict[str, Any]] = []
    scores = []
    stability: dict[float, list[NDArray[np.float32]]] = {offset: [] for offset in OFFSETS}
    for at in range(0, len(points), BATCH):
        part = points[at : at + BATCH]
        labels = np.full((len(part), 1), FOREGROUND, np.float32)
        low_res, iou = predictor.decode(PromptBatch(part[:, None], labels, None, None))
        for offset in OFFSETS:
            made = predictor.binarize(low_res, offset)
            stability[offset].append(made.stability.ravel())
        rles += encoded(made.masks.reshape(-1, *image.shape[:2]))
        scores.append(iou.ravel())
    corners = coco.toBbox(rles)
    corners[:, 2:] += corners[:, :2] - 1
    joined = {offset: np.concatenate(parts) for offset, parts in stability.items()}
    return Candidates(rles, corners, np.concatenate(scores), joined, encoded(truth))


def judge(found: list[Candidates], iou: float, stable: float, offset: float) -> tuple[float, ...]:
    """Return AP, AP at IoU 0.5, AR and the number of masks per image."""
    images, truth, results = [], [], []
    for number, one in enumerate(found, 1):
        good = np.flatnonzero((one.scores > iou) & (one.stability[offset] >= stable))
        kept = good[non_maximum_suppression(one.boxes[good], one.scores[good], BOX_NMS)]
        height, width = one.truth[0]["size"]
        images.append({"id": number, "height": height, "width": width})
        for rle in one.truth:
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": rle,
                    "area": float(coco.area(rle)),
                    "iscrowd": 0,
                }
            )
        results += [
            {
                "image_id": number,
                "category_id": 1,
                "segmentation": one.rles[index],
                "score": float(one.scores[index]),
            }
            for index in kept
        ]
    if not results:
        return 0.0, 0.0, 0.0, 0.0
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {"images": images, "annotations": truth, "categories": [{"id": 1}]}
        known.createIndex()
        judged = COCOeval(known, known.loadRes(results), "segm")
        judged.params.maxDets = [1, 100, 1000]
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"][:, :, 0, 0, -1]
    recall = judged.eval["recall"][:, 0, 0, -1]
    return precision.mean(), precision[0].mean(), recall.mean(), len(results) / len(found)


def main(bundle: str | None) -> None:
    """Print the best settings and segment_anything's as a Markdown table."""
    predictor = GleSamPredictor(bundle)
    groups: dict[str, list[Candidates]] = {}
    for group, image, truth in pictures():
        groups.setdefault(group, []).append(candidates(predictor, image, truth))
        print(f"decoded {group}", file=sys.stderr, flush=True)
    rows = []
    for setting in itertools.product(IOU_THRESHOLDS, STABILITY_THRESHOLDS, OFFSETS):
        figures = {group: judge(found, *setting) for group, found in groups.items()}
        rows.append((np.mean([ap for ap, *_ in figures.values()]), setting, figures))
    rows.sort(key=lambda row: (-row[0], row[1]))
    print("| pred IoU > | stability >= | offset | mean AP | " + " | ".join(groups) + " |")
    print("|---:|---:|---:|---:|" + "---:|" * len(groups))
    default = [row for row in rows if row[1] == (0.88, 0.95, 1.0)]
    for mean, setting, figures in [*rows[:12], *default]:
        cells = [
            f"{100 * ap:.1f} / {100 * ap50:.1f} / {100 * ar:.1f} / {count:.1f}"
            for ap, ap50, ar, count in figures.values()
        ]
        shown = " | ".join(format(value, "g") for value in setting)
        print(f"| {shown} | {100 * mean:.1f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
