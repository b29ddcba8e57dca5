"""Measure how far one bundle lies from another: errors of stages, IoU of masks, and their tables.

An export uses the same stage errors to compare a bundle with the PyTorch reference.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glesam_calibration.calibration_set import LEVELS
from glesam_evaluation.protocol import Row
from glesam_evaluation.results import Results, describe_model, markdown
from glesam_runtime import chain, compare
from glesam_runtime.bundle import Bundle
from glesam_runtime.manifest import (
    STAGES,
    Gate,
    ImageParity,
    Manifest,
    ParityOutput,
    StageError,
)
from glesam_runtime.manifest_file import file_refs
from glesam_runtime.timestep_levels import levels_of

FLOAT, QUANTIZED, BETWEEN = "float", "quantized", "quantized against float"
FOUND = 0.5
"""Lowest IoU with the ground truth at which an object counts as found, as in PASCAL VOC."""


@dataclass(frozen=True)
class Comparison:
    """Metrics of every mask and of every case."""

    rows: tuple[Row, ...]
    """The segmenter of a row is FLOAT or QUANTIZED (against the ground truth), or BETWEEN."""
    images: tuple[ImageParity, ...]
    golden_failures: tuple[str, ...] = ()
    """Failures of the golden check of the quantized bundle; empty if it passed or was not run."""

    @property
    def mean_iou(self) -> float:
        """Return the mean IoU of the quantized bundle's masks with the float bundle's masks."""
        return float(np.mean(self._between()))

    @property
    def worst_iou(self) -> float:
        """Return the lowest such IoU among the objects that the float bundle finds.

        If the float bundle does not find an object, the prompt is ambiguous to it. A small rounding
        error may then select another mask. If it finds no object at all, every mask counts.
        """
        return min(self.found() or self._between())

    def found(self) -> list[float]:
        """Return the IoU with the float bundle's masks, for objects that the float bundle finds."""
        hits = {_case(row) for row in self.rows if row.segmenter == FLOAT and row.iou >= FOUND}
        between = (row for row in self.rows if row.segmenter == BETWEEN)
        return [row.iou for row in between if _case(row) in hits]

    @property
    def truth_lost(self) -> float:
        """Return the loss of mean IoU with the ground truth."""
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


def stage_error(actual: NDArray[np.floating], expected: NDArray[np.floating]) -> StageError:
    """Return the relative L2 error and the largest difference of two arrays.

    Values that are not finite become the largest float, because JSON has no infinity.
    """
    found = compare.relative_l2(actual, expected), compare.max_abs(actual, expected)
    return StageError(*(v if math.isfinite(v) else sys.float_info.max for v in found))


def solve_eps(
    z_l: NDArray[np.floating],
    z_h: NDArray[np.floating],
    manifest: Manifest,
    timestep: int | None = None,
) -> NDArray[np.float64]:
    """Solve Eq. 4 for eps, the output of the U-Net, in float64.

    `timestep` is the one that the enhancer ran; None is the bundle's default.

    At T = 999, z_H is nearly z_L / sqrt(abar_T), so its relative error hides the error of the
    U-Net.
    """
    model = manifest.model
    bars = {level.timestep: level.alpha_bar for level in levels_of(manifest)}
    alpha_bar = model.alpha_bar if timestep is None else bars[timestep]
    root = alpha_bar**0.5
    eps: NDArray[np.float64] = model.gamma * (z_l.astype(np.float64) - root * z_h)
    eps /= (1 - alpha_bar) ** 0.5
    return eps


Array = NDArray[np.float32]
Answers = Mapping[str, tuple[Array, Array]]
"""Logits [B,4,S/4,S/4] and predicted IoU [B,4] by kind of prompt."""


@dataclass(eq=False)
class Outputs:
    """Outputs of a bundle for one case."""

    features: dict[str, Array]
    """Outputs of the encoder for the image."""
    enhanced: Array | None = None
    """Output of the enhancer for the features of the float bundle."""
    chained: Array | None = None
    """Output of the enhancer for the features of the bundle itself."""
    timestep: int | None = None
    """The timestep that the enhancer ran; None in a bundle with one only."""


def errors_before_decoder(
    found: Outputs, wanted: Outputs, manifest: Manifest
) -> dict[ParityOutput, StageError]:
    """Return the errors of encoder and enhancer, and of eps, the output of the U-Net."""
    encoder = [stage_error(found.features[n], wanted.features[n]) for n in wanted.features]
    assert found.enhanced is not None, "enhanced before"
    assert wanted.enhanced is not None, "enhanced before"
    z_l = wanted.features[chain.EMBEDDINGS]
    both = found.enhanced, wanted.enhanced
    eps = [solve_eps(z_l, enhanced, manifest, found.timestep) for enhanced in both]
    return {
        "encoder": max(encoder, key=lambda error: error.relative_l2),
        "enhancer": stage_error(found.enhanced, wanted.enhanced),
        "eps": stage_error(*eps),
    }


def decoder_error(alone: Answers, expected: Answers) -> StageError:
    """Return the larger error of the two outputs of the decoder, over all prompts."""
    errors = [
        stage_error(*(np.concatenate([one[kind][part] for kind in expected]) for one in pair))
        for part in (0, 1)  # low_res_masks, iou_predictions
        for pair in [(alone, expected)]
    ]
    return max(errors, key=lambda error: error.relative_l2)


OUTPUTS: tuple[ParityOutput, ...] = ("encoder", "enhancer", "eps", "decoder")


def size_of(manifest: Manifest) -> int:
    """Return the size of a bundle's files without the manifest, bytes."""
    return sum(ref.bytes for ref in file_refs(manifest))


def stage_table(images: Sequence[ImageParity]) -> str:
    """Return a table of stage errors and IoU with the float bundle's masks, a row per level."""
    head = f"{'level':<8}" + "".join(f"{name:>11}" for name in OUTPUTS)
    lines = [head + f"{'IoU mean':>11}{'IoU worst':>11}"]
    for level in LEVELS:
        rows = [image for image in images if image.level == level]
        if not rows:
            continue
        errors = [np.mean([row.errors[name].relative_l2 for row in rows]) for name in OUTPUTS]
        mean = np.mean([row.mask_iou_mean for row in rows])
        worst = min(row.mask_iou_worst for row in rows)
        figures = "".join(f"{error:>11.3g}" for error in errors)
        lines.append(f"{level:<8}{figures}{mean:>11.4f}{worst:>11.4f}")
    return "\n".join(lines)


def summary(float_bundle: Manifest, quantized: Manifest, measured: Comparison) -> str:
    """Return a few lines: IoU with the float bundle, loss against the ground truth, size."""
    share = size_of(quantized) / size_of(float_bundle)
    masks = sum(row.segmenter == BETWEEN for row in measured.rows)
    found = len(measured.found())
    of_them = f"the {found} whose object the float bundle finds" if found else "all"
    return "\n".join(
        [
            f"mask IoU with the float bundle {measured.mean_iou:.4f} mean of {masks} masks, "
            f"{measured.worst_iou:.4f} worst of {of_them}",
            f"ground-truth IoU lost {measured.truth_lost:+.4f}",
            f"size {size_of(quantized) / 1e6:.1f} MB, {share:.3f} of the float bundle's "
            f"{size_of(float_bundle) / 1e6:.1f} MB",
        ]
    )


def results(quantized: Bundle, dataset: str, seed: int, measured: Comparison) -> Results:
    """Convert a comparison to the results of an evaluation, for tables and a plot."""
    model = quantized.manifest.model
    precisions = "/".join(quantized.manifest.stages[stage].precision for stage in STAGES)
    about = describe_model(model.preset, model.unet, model.trained, f"quantized, {precisions}")
    return Results(about, dataset, seed, measured.rows)


def report(
    float_bundle: Bundle, quantized: Bundle, dataset: str, seed: int, measured: Comparison
) -> str:
    """Return the whole report in Markdown."""
    return "\n".join(
        [
            summary(float_bundle.manifest, quantized.manifest, measured),
            "",
            "Relative L2 error per stage on the float bundle's inputs (eps: output of the U-Net),",
            "and mean and worst IoU with the float bundle's masks, over all masks:",
            "",
            "```",
            stage_table(measured.images),
            "```",
            "",
            markdown(results(quantized, dataset, seed, measured)),
        ]
    )


def write_report(
    float_bundle: Bundle,
    quantized: Bundle,
    dataset: str,
    seed: int,
    measured: Comparison,
    folder: Path,
) -> None:
    """Write report.md and plot.png; write both or neither.

    Raises:
        InputError: matplotlib is not installed, or the folder cannot be written.
    """
    from glesam_evaluation.plot import draw
    from glesam_runtime.staging import staged_file

    folder.mkdir(parents=True, exist_ok=True)
    text = report(float_bundle, quantized, dataset, seed, measured)
    with (
        staged_file(folder / "report.md") as tables,
        staged_file(folder / "plot.png") as plot,
    ):
        tables.write_text(text, encoding="utf-8")
        draw(results(quantized, dataset, seed, measured), plot)
