"""Figures of a quantized bundle's masks, against the truth and against the float bundle's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glesam_evaluation.protocol import Row
from glesam_runtime import compare
from glesam_runtime.manifest import Gate, ImageParity

FLOAT, QUANTIZED, BETWEEN = "float", "quantized", "quantized against float"
FOUND = 0.5
"""IoU with the truth from which on an object counts as found, as in PASCAL VOC."""


@dataclass(frozen=True)
class Comparison:
    """Figures of every mask, and of every case."""

    rows: tuple[Row, ...]
    """Segmenters are FLOAT and QUANTIZED against the truth, and BETWEEN."""
    images: tuple[ImageParity, ...]
    golden_failures: tuple[str, ...] = ()
    """What the golden check of the quantized bundle reports, if it was run; empty is a pass."""

    @property
    def mean_iou(self) -> float:
        """Of the quantized bundle's masks with the float bundle's."""
        return float(np.mean(self._between()))

    @property
    def worst_iou(self) -> float:
        """Likewise, the lowest of the objects that the float bundle finds.

        Where it finds none, its mask is a guess between several readings of the prompt, and any
        rounding may decide for another.
        """
        return min(self.found() or self._between())

    def found(self) -> list[float]:
        """IoU with the float bundle's masks, of those that it finds the object with."""
        hits = {_case(row) for row in self.rows if row.segmenter == FLOAT and row.iou >= FOUND}
        between = (row for row in self.rows if row.segmenter == BETWEEN)
        return [row.iou for row in between if _case(row) in hits]

    @property
    def truth_lost(self) -> float:
        """How much lower the mean IoU with the truth has become."""
        means = [
            np.mean([row.iou for row in self.rows if row.segmenter == name])
            for name in (FLOAT, QUANTIZED)
        ]
        return float(means[0] - means[1])

    def failures(self, gate: Gate) -> list[str]:
        """Return what fails, one line each: the gate on the compared masks, and the golden check.

        The gate's limit on the worst mask applies to `worst_iou`. The golden check applies the same
        limits to all masks of the golden file.
        """
        found = compare.failures(gate, {}, self.mean_iou, self.worst_iou)
        return found + [f"golden file: {failure}" for failure in self.golden_failures]

    def _between(self) -> list[float]:
        return [row.iou for row in self.rows if row.segmenter == BETWEEN]


def _case(row: Row) -> tuple[str, int, str, str]:
    return row.image, row.mask, row.condition, row.prompt
