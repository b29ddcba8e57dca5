"""What quantization cost, in tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glesam_calibration.comparison import BETWEEN, Comparison
from glesam_calibration.images import LEVELS
from glesam_evaluation.results import describe_model, markdown
from glesam_evaluation.results import Results
from glesam_runtime.bundle import Bundle
from glesam_runtime.manifest import STAGES, ImageParity, Manifest, ParityOutput
from glesam_runtime.manifest_file import file_refs

OUTPUTS: tuple[ParityOutput, ...] = ("encoder", "enhancer", "eps", "decoder")


def size_of(manifest: Manifest) -> int:
    """Bytes of a bundle's files but the manifest itself."""
    return sum(ref.bytes for ref in file_refs(manifest))


def stage_table(images: Sequence[ImageParity]) -> str:
    """Errors of the stages and IoU with the float bundle's masks, all of them: a row a level."""
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
    """A few lines: masks kept, truth lost, size."""
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
    """A comparison as an evaluation, for its tables and plot."""
    model = quantized.manifest.model
    precisions = "/".join(quantized.manifest.stages[stage].precision for stage in STAGES)
    about = describe_model(model.preset, model.unet, model.trained, f"quantized, {precisions}")
    return Results(about, dataset, seed, measured.rows)


def report(
    float_bundle: Bundle, quantized: Bundle, dataset: str, seed: int, measured: Comparison
) -> str:
    """Everything, in Markdown."""
    return "\n".join(
        [
            summary(float_bundle.manifest, quantized.manifest, measured),
            "",
            "Relative L2 of each stage on the float bundle's own inputs (eps: the U-Net's answer),",
            "and IoU with the float bundle's masks, the lowest of all of them:",
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
    """Write report.md and plot.png, both or neither.

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
