"""Measure the parity of nano's enhancer with four timesteps, in every precision.

Usage: python -m tests.studies.timestep_levels_parity FOLDER [PRECISION ...]

Only the enhancer changes its precision; encoder and decoder are those of the built-in bundle. fp32,
fp16 and bf16 are compared with the PyTorch reference as in an export. int8 is compared with the
float bundle as in a calibration, for four timesteps and for nano's own alone. nano was trained at
timestep 1, so the masks at the others mean little. FOLDER keeps the graphs.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace as copied
from pathlib import Path

import msgspec
import numpy as np
from msgspec.structs import replace

from glesam_calibration import activations
from glesam_calibration.calibration_set import choose_samples
from glesam_calibration.calibrator import Data, gate_cases
from glesam_calibration.kept_statistics import KeptStatistics, StatisticsPlan
from glesam_calibration.quantize import Recipe, write_stage
from glesam_calibration.yardstick import Yardstick
from glesam_evaluation.datasets import open_dataset
from glesam_export.console_output import parity_table
from glesam_export.stages import export_stage
from glesam_export.timesteps import add_levels
from glesam_export.verify import cases, reference_outputs
from glesam_export.verify.parity import measure
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.manifest import TIMESTEP_LEVELS, ImageParity, Stage, StageName

STEPS = (1, 100, 400, 999)
DATA = Data((), samples=16, seed=0, truth=open_dataset("scenes:2@2000000"), truth_images=2)


def main(place: Path, wanted: list[str]) -> None:
    """Print a table for each precision."""
    checkpoint = make_checkpoint(WeightOptions("nano"))
    add_levels(checkpoint, STEPS)
    plain = open_bundle()
    bundles = {}
    for precision in ("fp32", "fp16", "bf16"):
        needed = precision in wanted or (precision == "fp32" and "int8" in wanted)
        if not needed:
            continue
        folder = place / precision
        record = folder / "stage.json"
        if not record.exists():
            shutil.copytree(plain.path, folder, dirs_exist_ok=True)
            made = export_stage(checkpoint, "enhancer", precision, 1, folder)  # type: ignore[arg-type]
            record.write_bytes(msgspec.json.encode(made))
        stage = msgspec.json.decode(record.read_bytes(), type=Stage)
        manifest = replace(
            plain.manifest,
            requires=(TIMESTEP_LEVELS,),
            model=replace(plain.manifest.model, timestep_levels=checkpoint.levels),
            stages={**plain.manifest.stages, "enhancer": stage},
        )
        bundles[precision] = Bundle(folder, manifest, "0" * 64)
        print(f"{precision}: {stage.graph.bytes / 1e6:.3f} MB", flush=True)
    clear, *_, worst = cases.make_cases(checkpoint.preset)
    pictures = cases.at_every_level([clear, worst], checkpoint)
    if {"fp32", "fp16", "bf16"} & set(wanted):
        reference = reference_outputs.record_reference(checkpoint, pictures, nullcontext)
    for precision, bundle in bundles.items():
        if precision in wanted:
            found = measure(bundle, pictures, reference, nullcontext)
            print(precision, parity_table(found), "", sep="\n", flush=True)
            _by_timestep(found.images)
    if "int8" in wanted:
        for name, bundle in (("one timestep", plain), ("four timesteps", bundles["fp32"])):
            print(f"int8, {name}", flush=True)
            _quantized(bundle, place / f"int8 {name}")


def _quantized(bundle: Bundle, folder: Path) -> None:
    """Quantize the enhancer alone, and compare the result with the float bundle."""
    folder.mkdir()
    samples = choose_samples((), DATA.samples, DATA.seed, lambda _: None)
    plan = StatisticsPlan(bundle.sha256, (), DATA.seed, activations.BUDGET, "study")
    state = KeptStatistics(folder / "state", plan, False)
    stages: tuple[StageName, ...] = ("encoder", "enhancer")
    seen = {
        stage: activations._collect_stage(
            bundle, stage, samples, state, lambda *_: None, activations.BUDGET
        )
        for stage in stages
    }
    shutil.copytree(bundle.path, folder / "bundle")
    stage = write_stage(bundle, "enhancer", seen["enhancer"], Recipe(), folder / "bundle")
    stages_of = {**bundle.manifest.stages, "enhancer": stage}
    other = Bundle(folder / "bundle", replace(bundle.manifest, stages=stages_of), "")
    print(f"{stage.graph.bytes / 1e6:.3f} MB", flush=True)
    compared = copied(gate_cases(DATA), levels=("clear", "LQ-3"))
    found = Yardstick(bundle, compared).measure(other, ("enhancer",))
    print(f"IoU {found.mean_iou:.4f} mean, {found.worst_iou:.4f} worst of found objects")
    _by_timestep(found.images)


def _by_timestep(images: tuple[ImageParity, ...]) -> None:
    """Print the largest errors and the IoU at each timestep."""
    for step in dict.fromkeys(image.timestep for image in images):
        rows = [image for image in images if image.timestep == step]
        worst = {
            name: max(row.errors[name].relative_l2 for row in rows)  # type: ignore[index]
            for name in ("enhancer", "eps")
        }
        print(
            f"timestep {step}: enhancer {worst['enhancer']:.2e} eps {worst['eps']:.2e} "
            f"IoU {np.mean([row.mask_iou_mean for row in rows]):.5f} mean "
            f"{min(row.mask_iou_worst for row in rows):.5f} worst",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["fp32", "fp16", "bf16", "int8"])
