"""Calibrate a full-size bundle within 10 GB: ViT-B with SD 2.1, random weights, 8 samples.

Usage: python -m tests.studies.quantization_full FOLDER

A float bundle that already is in FOLDER is used again.
"""

from __future__ import annotations

import sys
from pathlib import Path

from glesam_runtime.bundle import open_bundle
from glesam_runtime.manifest import STAGES

from ..full_size import GAMMA, TIMESTEP, export, random_weights, run_measured

PEAK_LIMIT = 10e9
"""Bytes."""


def main(folder: Path) -> None:
    """Export, calibrate, and print time and memory.

    Raises:
        SystemExit: the calibration used more memory than PEAK_LIMIT.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "bundle"
    if not (source / "manifest.json").is_file():
        options = ("--random-weights", "0", "--gamma", f"{GAMMA:g}", "--timestep", str(TIMESTEP))
        export(random_weights("sam_vit_b"), source, *options).show()
    quantized = folder / "int8"
    command = [sys.executable, "-m", "glesam_calibration.cli", str(source), "--int8"]
    command += ["--samples", "8", "--smooth", "0.5"]
    command += ["--evaluate-images", "1", "-o", str(quantized)]
    printed, seconds, peak = run_measured(command)
    print(printed)
    stages = open_bundle(quantized).manifest.stages
    assert {stages[stage].precision for stage in STAGES} == {"int8"}
    print(f"calibration: {seconds:.0f} s, peak RSS {peak / 1e9:.2f} GB")
    if peak >= PEAK_LIMIT:
        sys.exit(f"more than {PEAK_LIMIT / 1e9:.0f} GB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
