"""Measure every backbone at full size, from files to masks, and write docs/backbones.md.

Usage: python -m tests.studies.backbones FOLDER PAGE

FOLDER keeps the figures, and a backbone whose figures are there is skipped. Weights and bundles are
removed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from glesam_runtime.bundle import open_bundle
from glesam_runtime.manifest import Parity

from ..full_size import export, random_weights, run_measured, write_files
from ..released import Diffusion, write_diffusion

BACKBONES = (
    *(("sam_vit_b", "sd21"), ("sam_vit_l", "sd21"), ("sam_vit_h", "sd21"), ("sam_vit_b", "sd15")),
    *((f"sam2.1_hiera_{size}", "sd21") for size in ("t", "s", "b+", "l")),
)
STAGES = ("encoder", "eps", "decoder")
"""The outputs whose errors are shown. At T = 1, z_H has the error of eps on a smaller scale."""

HEAD = """\
# Backbones at full size

<!-- page not run: takes hours -->

```bash
make backbones     # an hour; measures every backbone and writes this page
```

The table shows every SAM and SAM 2.1 with Stable Diffusion in float32. The command for each row:

```bash
glesam-export onnx --sam FILE --sd FOLDER --lora FILE --lora-alpha 8 --prompt-embeds FILE -o bundle/
glesam-run --selftest --bundle bundle/
```

| column | meaning |
|---|---|
| export, peak | Seconds and peak resident memory of the whole export with its verification. |
| bundle | Size of the bundle. |
| encoder, eps, decoder | Worst relative L2 to the unfolded PyTorch model. The gate is 1e-4. |
| IoU, worst | Mean and worst mask IoU with PyTorch. The gates are 0.9999 and 0.999. |
| run, peak | Seconds and peak resident memory of the self-test. |

Errors and IoU are taken on one procedural scene, clear and at LQ-1..3. Export and self-test each
run in their own process. Mapped files count as far as they were read. The weights are random,
because we cannot redistribute checkpoints: errors and times are those of the real sizes, and the
masks themselves mean nothing.
"""


@dataclass(frozen=True)
class Row:
    """The figures of one backbone; sizes in bytes."""

    preset: str
    unet: str
    export_seconds: float
    export_peak: int
    bundle: int
    errors: dict[str, float]
    iou_mean: float
    iou_worst: float
    run_seconds: float
    run_peak: int


def measure(preset: str, unet: str, folder: Path, diffusion: Diffusion) -> Row:
    """Export one backbone from files and run its bundle, then remove both."""
    weights = folder / "weights"
    checkpoint = random_weights(preset, unet)
    files = write_files(weights, checkpoint, diffusion)
    exported = export(checkpoint, folder / "bundle", *files.options())
    print(exported.printed, flush=True)
    parity = open_bundle(exported.bundle).manifest.parity
    assert parity is not None
    program = [
        sys.executable,
        "-m",
        "glesam_runtime",
        "--selftest",
        "--bundle",
        str(exported.bundle),
    ]
    _, run_seconds, run_peak = run_measured(program)
    row = Row(
        preset,
        unet,
        exported.seconds,
        exported.peak_rss,
        exported.size,
        {stage: _worst(parity, stage) for stage in STAGES},
        sum(image.mask_iou_mean for image in parity.images) / len(parity.images),
        min(image.mask_iou_worst for image in parity.images),
        run_seconds,
        run_peak,
    )
    shutil.rmtree(exported.bundle)
    shutil.rmtree(weights)
    return row


def page(rows: list[Row]) -> str:
    """Return the page as Markdown."""
    titles = ("SAM", "U-Net", "export", "peak", "bundle", *STAGES, "IoU", "worst", "run", "peak")
    lines = [HEAD, f"On {os.cpu_count()} cores:", "", "| " + " | ".join(titles) + " |"]
    lines.append("|---|---|" + "---:|" * (len(titles) - 2))
    for row in rows:
        cells = (
            *(row.preset, row.unet, f"{row.export_seconds:.0f} s", _size(row.export_peak)),
            *(_size(row.bundle), *(f"{row.errors[stage]:.1e}" for stage in STAGES)),
            *(f"{row.iou_mean:.6f}", f"{row.iou_worst:.6f}"),
            *(f"{row.run_seconds:.0f} s", _size(row.run_peak)),
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(folder: Path, destination: Path) -> None:
    """Measure the backbones that have no figures yet, and write the page."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, shared = [], {}
    for preset, unet in BACKBONES:
        known = folder / f"{preset}-{unet}.json"
        if not known.is_file():
            if unet not in shared:
                base = folder / unet
                shutil.rmtree(base, ignore_errors=True)
                base.mkdir()
                shared[unet] = write_diffusion(base, random_weights("sam_vit_b", unet))
            print(f"{preset} with {unet}", flush=True)
            row = measure(preset, unet, folder, shared[unet])
            known.write_text(json.dumps(asdict(row), indent=2))
        rows.append(Row(**json.loads(known.read_text())))
    for unet in shared:
        shutil.rmtree(folder / unet)
    destination.write_text(page(rows))
    print(f"wrote {destination}")


def _worst(parity: Parity, stage: str) -> float:
    return max(image.errors[stage].relative_l2 for image in parity.images)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
