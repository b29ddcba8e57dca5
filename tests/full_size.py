"""Run full-size exports by the command line, each in its own process."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from glesam_export import stages
from glesam_export.checkpoints import Checkpoint
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.families import family_of
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.bundle import open_bundle
from glesam_runtime.manifest import MANIFEST_FILE, PrecisionName
from glesam_runtime.manifest_file import dump

from .released import Diffusion, Released, write_diffusion, write_sam

GAMMA, TIMESTEP = 5.0, 1
"""At T = 1 a random U-Net hardly changes the latent, like a trained one. At 999 the exporter would
search for a gamma and T that fit the weights, but none fit random ones."""


@dataclass(frozen=True)
class FullExport:
    """A full-size bundle, and the time and memory of its export."""

    checkpoint: Checkpoint
    bundle: Path
    printed: str
    seconds: float
    peak_rss: int
    """Bytes."""

    @property
    def size(self) -> int:
        """Return the bytes of the bundle's files."""
        return sum(file.stat().st_size for file in self.bundle.iterdir())

    def show(self) -> None:
        """Print the parity table, and the time and memory of the export."""
        print(self.printed)
        print(
            f"{self.seconds:.0f} s, peak RSS {self.peak_rss / 1e9:.2f} GB, "
            f"bundle {self.size / 1e9:.2f} GB"
        )


def random_weights(preset: str, unet: str = "sd21") -> RandomCheckpoint:
    """Return the random weights of seed 0."""
    return RandomCheckpoint(0, sam_preset(preset), unet_preset(unet), GAMMA, TIMESTEP)


def write_files(
    folder: Path, checkpoint: RandomCheckpoint, diffusion: Diffusion | None = None
) -> Released:
    """Write weights in the released file formats, next to the files of an enhancer."""
    folder.mkdir(parents=True, exist_ok=True)
    files = diffusion or write_diffusion(folder, checkpoint)
    suffix = family_of(checkpoint.preset).suffix
    sam = write_sam(folder / f"{checkpoint.preset.name}{suffix}", checkpoint)
    gc.collect()
    return Released(sam, files.sd, files.lora, files.prompt_embeds, GAMMA, TIMESTEP)


def export(checkpoint: RandomCheckpoint, bundle: Path, *options: str) -> FullExport:
    """Run `glesam-export onnx` for a checkpoint; `options` name its weights."""
    presets = "--preset", checkpoint.preset.name, "--unet", checkpoint.unet.name
    command = [
        sys.executable,
        "-m",
        "glesam_export",
        "onnx",
        *presets,
        "--verify",
        "full",
        *options,
    ]
    printed, seconds, peak = run_measured([*command, "-o", str(bundle)])
    return FullExport(checkpoint, bundle, printed, seconds, peak)


def assemble(
    folder: Path, checkpoint: Checkpoint, precision: PrecisionName, like: Path, enhancer: Path
) -> Path:
    """Make a bundle from newly traced encoder and decoder and from parts of other bundles.

    This takes a minute, because no enhancer is traced twice.

    Args:
        folder: to write.
        checkpoint: of the bundle.
        precision: of encoder and decoder.
        like: a bundle of the same SAM, which gives manifest and golden file.
        enhancer: a bundle that gives the enhancer, in its own precision.
    """
    folder.mkdir(parents=True)
    source, other = open_bundle(like), open_bundle(enhancer)
    made = {
        stage: stages.export_stage(checkpoint, stage, precision, 1, folder)
        for stage in ("encoder", "decoder")
    }
    made["enhancer"] = other.manifest.stages["enhancer"]
    for path in (other.graph_path("enhancer"), other.path / "enhancer.onnx.data"):
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(source.golden_path, folder / source.golden_path.name)
    manifest = replace(source.manifest, stages=made, parity=None)
    (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return folder


def run_measured(command: list[str]) -> tuple[str, float, int]:
    """Run a program; return its output, wall seconds and peak memory in bytes.

    Raises:
        AssertionError: the exit code is not 0; the message has the output.
    """
    peak = 0
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True) as child:
            # Measured while it runs. The system's figure after the end includes the parent's
            # memory, which a child has until it executes the program.
            while child.poll() is None:
                peak = max(peak, _high_water(child.pid))
                time.sleep(0.05)
        seconds = time.perf_counter() - start
        output.seek(0)
        printed = output.read()
    assert child.returncode == 0, printed
    return printed, seconds, peak


def _high_water(pid: int) -> int:
    """Return the peak memory of a process in bytes; 0 if it has ended."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 1024 * int(found[1]) if found else 0
