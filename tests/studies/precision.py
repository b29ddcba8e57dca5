"""Compare fp16 and bf16 of every preset with the PyTorch reference, and write docs/precision.md.

Usage: python -m tests.studies.precision FOLDER PAGE [PRESET ...]

FOLDER keeps the figures, and a preset whose figures are there is skipped; bundles are removed. With
PRESET only those are measured, and the page still shows all figures in FOLDER.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from glesam_export import precision
from glesam_runtime import compare
from glesam_runtime.bundle import open_bundle
from glesam_runtime.manifest import STAGES, ParityOutput, PrecisionName

from ..full_size import run_measured

HALVES: tuple[PrecisionName, ...] = ("fp16", "bf16")
OUTPUTS: tuple[ParityOutput, ...] = ("encoder", "enhancer", "eps", "decoder")
PRESETS = (
    *(("nano", "nano"), ("nano2", "nano"), ("sam_vit_b", "sd21"), ("sam_vit_b", "sd15")),
    *((name, "sd21") for name in ("sam_vit_l", "sam_vit_h")),
    *((f"sam2.1_hiera_{size}", "sd21") for size in ("t", "s", "b+", "l")),
)
BUILT_IN = "nano"
"""The only preset with trained weights; the others have random ones."""

HEAD = """\
# Precision

What half precision costs, stage by stage, against the unfolded PyTorch model in float32: relative
L2 of each stage on the reference's own inputs, and IoU of the final masks, all stages in half
precision one after the other. One procedural scene, clear and at LQ-1..3, prompted by points, boxes
and masks. `make precision` writes this page.

No GPU is needed for it: the typed graphs run on the CPU with every half-precision result rounded
where the graph says it is one (half storage, float32 accumulation, overflow to infinity), which is
what a GPU's matrix units do, and differs from a real engine by the order of its sums. An engine is
proved on its device by `glesam-run --selftest`.

The nano has trained weights. All others have random ones (nobody's checkpoints are ours to ship):
their errors are those of the real sizes, their masks are noise around zero, where any rounding
flips pixels, so that their IoU is reported and no gate. eps is the U-Net's own answer: z_H hides
its error at T = 999, where it is nearly z_L / sqrt(abar_T).

Gates: relative L2 of each stage 0.02; IoU 0.995 in the mean and 0.98 at worst, for trained weights.

| preset | U-Net | precision | level | encoder | enhancer | eps | decoder | IoU mean | IoU worst |
|---|---|---|---|---:|---:|---:|---:|---:|---:|
"""


@dataclass(frozen=True)
class Level:
    """The figures of one preset at one level."""

    level: str
    errors: dict[str, float]
    iou_mean: float
    iou_worst: float


@dataclass(frozen=True)
class Row:
    """The figures of one preset in one precision; `size` is the bytes of its files."""

    preset: str
    unet: str
    precision: str
    levels: list[Level]
    size: int
    seconds: float
    peak: int


def measure(preset: str, unet: str, half: PrecisionName, folder: Path) -> Row:
    """Export and verify one preset in its own process, then remove the bundle."""
    bundle = folder / "bundle"
    weights = () if preset == BUILT_IN else ("--random-weights", "0")
    command = [sys.executable, "-m", "glesam_export", "onnx", "--preset", preset, "--unet", unet]
    command += [*weights, "--precision", half, "--allow-parity-failure", "-o", str(bundle)]
    printed, seconds, peak = run_measured(command)
    print(printed, flush=True)
    parity = open_bundle(bundle).manifest.parity
    assert parity is not None
    levels = [
        Level(
            image.level,
            {output: image.errors[output].relative_l2 for output in OUTPUTS},
            image.mask_iou_mean,
            image.mask_iou_worst,
        )
        for image in parity.images
    ]
    size = sum(file.stat().st_size for file in bundle.iterdir())
    shutil.rmtree(bundle)
    return Row(preset, unet, half, levels, size, seconds, peak)


def page(rows: list[Row]) -> str:
    """Return the page as Markdown."""
    lines = [HEAD.rstrip()]
    for row in rows:
        for level in row.levels:
            cells = (
                *(row.preset, row.unet, row.precision, level.level),
                *(f"{level.errors[output]:.1e}" for output in OUTPUTS),
                *(f"{level.iou_mean:.5f}", f"{level.iou_worst:.5f}"),
            )
            lines.append("| " + " | ".join(cells) + " |")
    measured = {(row.preset, row.unet, row.precision) for row in rows}
    missing = [
        f"{preset} with {unet} in {half}"
        for preset, unet in PRESETS
        for half in HALVES
        if (preset, unet, half) not in measured
    ]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    outside = [row for row in rows if row.preset == BUILT_IN and not _within(row)]
    for row in outside:
        lines += [
            "",
            f"{row.preset} in {row.precision} lies outside its gate as it is, and is not written; "
            "`--auto-islands` looks for modules to keep in float32.",
        ]
    lines += [
        "",
        "## What stays in float32",
        "",
        "| stage | island | in | why |",
        "|---|---|---|---|",
    ]
    islands = [
        ("every preset", stage, island) for stage in STAGES for island in precision.ISLANDS[stage]
    ]
    islands += [
        (preset, stage, island)
        for (preset, stage), own in precision.PRESET_ISLANDS.items()
        for island in own
    ]
    for preset, stage, island in islands:
        where = stage if preset == "every preset" else f"{stage} of {preset}"
        lines.append(
            f"| {where} | {island.name} | {', '.join(island.precisions)} | {island.reason} |"
        )
    lines.append(
        "| enhancer | GLE's last add | fp16, bf16 | at T = 999 it takes two terms from each other "
        "that are 14.6 times the result |"
    )
    lines += [
        "",
        "Where a gate fails all the same, `--auto-islands` ranks every module by the error that an "
        "island around it would take away for each weight it keeps in float32, and adds the best, "
        "twice as many each time, until the bundle passes; the manifest names them.",
    ]
    return "\n".join(lines) + "\n"


def _within(row: Row) -> bool:
    """Return whether a row passes the gate of its precision."""
    gate = compare.GATES[row.precision]  # type: ignore[index]
    errors = {f"{level.level} {o}": e for level in row.levels for o, e in level.errors.items()}
    mean = sum(level.iou_mean for level in row.levels) / len(row.levels)
    return not compare.failures(gate, errors, mean, min(level.iou_worst for level in row.levels))


def main(folder: Path, destination: Path, named: list[str]) -> None:
    """Measure the presets that have no figures yet, and write the page."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for preset, unet in PRESETS:
        for half in HALVES:
            known = folder / f"{preset}-{unet}-{half}.json"
            if not known.is_file():
                if named and preset not in named:
                    continue
                print(f"{preset} with {unet} in {half}", flush=True)
                known.write_text(json.dumps(asdict(measure(preset, unet, half, folder)), indent=2))
            found = json.loads(known.read_text())
            found["levels"] = [Level(**level) for level in found["levels"]]
            rows.append(Row(**found))
            destination.write_text(page(rows))
    print(f"wrote {destination}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
