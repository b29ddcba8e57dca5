"""Measure how far fp16 and bf16 are from the PyTorch reference, and write docs/precision.md.

Usage: python -m tests.studies.precision FOLDER PAGE [PRESET ...]

FOLDER keeps the figures, and a preset that has figures there is not measured again. Bundles are
removed. With PRESET only the named presets are measured; the page lists everything in FOLDER.
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

<!-- page not run: takes hours -->

Measure what fp16 and bf16 cost, and write this page (about two hours):

```bash
make precision
```

Export and verify one preset in half precision:

```bash
glesam-export onnx --preset nano --fp16 -o nano-fp16/
```

## Errors by stage

Each row is one preset in one precision, on one procedural scene at one level of degradation. The
prompts are points, boxes and masks. The reference is the unfolded PyTorch model in float32.

- encoder, enhancer, eps, decoder: relative L2 error of the stage on the reference's inputs. eps is
  the output of the U-Net. It is listed because z_H hides its error at T = 999, where z_H is nearly
  z_L / sqrt(abar_T).
- IoU mean, IoU worst: IoU of the final masks with the reference's masks. Here each stage takes the
  output of the half-precision stage before it.

A bundle passes its gate if each stage's relative L2 is at most 0.02 and the IoU is at least 0.995
in the mean and 0.98 at worst. The IoU limits apply to trained weights only. The nano has trained
weights; all other presets have random weights, because this project may not distribute anyone's
checkpoints. Random weights give errors of realistic size, but their masks are noise around zero,
where any rounding flips pixels.

`make precision` measured all figures:

| preset | U-Net | precision | level | encoder | enhancer | eps | decoder | IoU mean | IoU worst |
|---|---|---|---|---:|---:|---:|---:|---:|---:|
"""

METHOD = """\
## How it is measured without a GPU

The exported graphs run on the CPU, and every half-precision result is rounded to the type that the
graph gives it. This emulates half storage, float32 accumulation and overflow to infinity, as in the
matrix units of a GPU. A real engine differs only in the order of its sums
([ADR 3](adr/0003-half-precision-judged-by-rounding.md)). `glesam-run --selftest` verifies an engine
on its device.
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
            f"{row.preset} in {row.precision} fails its gate, so its bundle is not written. "
            "`--auto-islands` looks for modules to keep in float32.",
        ]
    lines += [
        "",
        "## What stays in float32",
        "",
        "An island is a module that computes in float32 inside a half-precision graph.",
        "",
        "| stage | island | precisions | reason |",
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
        "| enhancer | GLE's last add | fp16, bf16 | at T = 999 it subtracts two terms that are "
        "14.6 times the result |"
    )
    lines += [
        "",
        "If a bundle still fails its gate, `--auto-islands` adds islands until it passes:",
        "",
        "1. It ranks the modules of the stage with the largest error. A module's rank is the error "
        "that it would lose as an island, per weight that the island keeps in float32.",
        "2. It makes the best module an island, exports the stage again and verifies the bundle. "
        "Each further round adds twice as many islands to the stage.",
        "3. The manifest lists the added islands.",
        "",
        METHOD.rstrip(),
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
