"""Do one part of a plan in a process of its own: `python -m glesam_benchmark.gpu.part JOB`."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from glesam_benchmark.gpu import plan
from glesam_benchmark.gpu.findings import Finding, Operations, add_finding

PACKAGES = ("torch", "onnxruntime-gpu", "onnxruntime", "triton", "onnx", "diffusers")

Report = Callable[[Finding], None]
"""Writes a finding at once."""


class Job(msgspec.Struct, frozen=True):
    """A task and how to do it."""

    task: plan.Task
    work: str
    """Folder of the bundles."""
    findings: str
    device: plan.Device
    repeats: int


def encode(job: Job) -> str:
    """Return a job as an argument of the command line."""
    return msgspec.json.encode(job).decode()


def do(job: Job) -> None:
    """Do a job; every finding is written as soon as it is there."""
    task, work = job.task, Path(job.work)

    def report(finding: Finding) -> None:
        add_finding(Path(job.findings), finding)

    match task:
        case plan.MeasureDevice():
            from glesam_benchmark.gpu import device_rates

            device_rates.measure(task.side, job.device, report)
        case plan.CountOperations():
            _count(task, report)
        case plan.WriteGolden():
            from glesam_benchmark.gpu import seeded_bundles

            seeded_bundles.write_golden(task.preset, work)
        case plan.ExportStages():
            from glesam_benchmark.gpu import seeded_bundles

            for stage in task.stages:
                seeded_bundles.export(task.preset, task.precision, stage, work)
                gc.collect()
        case plan.Quantize():
            _quantize(task, work)
        case plan.RunOnnx():
            from glesam_benchmark.gpu import time_onnxruntime

            time_onnxruntime.measure(task, work, job.device, job.repeats, report)
        case plan.RunTorch():
            from glesam_benchmark.gpu import time_pytorch

            time_pytorch.measure(task, job.device, job.repeats, report)


def device_name(device: plan.Device) -> str:
    """Return the name of the GPU and its driver, or that this is a CPU."""
    if device == "cpu":
        return f"CPU, {platform.machine()}"
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(
            query, capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"unknown GPU ({type(error).__name__} from nvidia-smi)"


def versions() -> dict[str, str]:
    """Return the versions of the packages that decide the figures."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _count(task: plan.CountOperations, report: Report) -> None:
    from glesam_benchmark import operations
    from glesam_export.presets import sam_preset, unet_preset

    for preset in task.presets:
        unet = plan.unet_of(preset)
        counted = operations.count_operations(sam_preset(preset), unet_preset(unet))
        report(Operations(preset, counted))


def _quantize(task: plan.Quantize, work: Path) -> None:
    from glesam_benchmark.gpu import seeded_bundles

    source = seeded_bundles.assemble(task.preset, "fp32", work)
    target = seeded_bundles.folder_of(task.preset, "int8", work)
    command = [sys.executable, "-m", "glesam_calibration.cli", str(source), "--int8"]
    command += ["--samples", str(task.samples), "--method", "min-max", "-o", str(target)]
    command += ["--evaluate", "scenes:1", "--evaluate-images", "1"]
    subprocess.run(command, check=True)


def main() -> None:
    """Do the job of the command line."""
    do(msgspec.json.decode(sys.argv[1], type=Job))


if __name__ == "__main__":
    main()
