"""Compare the peak memory of ways to run a full-size bundle with that of PyTorch eager.

Usage: python -m tests.studies.memory BUNDLE [NAME ...]

BUNDLE was exported with `--random-weights 0`. Each way loads the model, runs one image and one
prompt in a process of its own, and ends. The parent reads the kernel's figures while it runs:
private memory belongs to the process alone; mapped files are shared with the page cache.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from glesam_runtime.engine_options import RequestedEngine

PYTORCH = "PyTorch eager"
KEPT = "OpenVINO, mapped pages kept"
WAYS: dict[str, RequestedEngine | None] = {
    PYTORCH: None,
    KEPT: RequestedEngine(backend="openvino"),
    "OpenVINO": RequestedEngine(backend="openvino"),
    "OpenVINO, --low-memory": RequestedEngine(backend="openvino", low_memory=True),
    "ONNX Runtime": RequestedEngine(backend="onnxruntime"),
    "ONNX Runtime, --low-memory": RequestedEngine(backend="onnxruntime", low_memory=True),
}


def run_one(name: str, folder: Path) -> None:
    """Load the model one way, and run an image and a prompt."""
    from glesam_benchmark.timing import golden_inputs
    from glesam_runtime.bundle import open_bundle

    bundle = open_bundle(folder)
    given, choice = golden_inputs(bundle), WAYS[name]
    start = time.perf_counter()
    chain: Any
    # Each way imports what it needs: PyTorch alone takes half a gigabyte.
    if choice is None:
        from glesam_benchmark import pytorch_chain
        from glesam_benchmark.contenders import PytorchRunner
        from glesam_export.weight_options import WeightOptions
        from glesam_export.weights import make_checkpoint

        weights = WeightOptions(preset=bundle.manifest.model.preset, random_weights=0)
        chain = pytorch_chain.load_pytorch_chain(make_checkpoint(weights), PytorchRunner(weights))
    else:
        from glesam_benchmark import bundle_chain

        if name == KEPT:
            from glesam_runtime.backends import openvino

            openvino.pages_given_back = lambda _: nullcontext()  # type: ignore[assignment]
        chain = bundle_chain.load_bundle_chain(bundle, replace(choice))
    loaded = time.perf_counter() - start
    start = time.perf_counter()
    features = chain.enhance(chain.encode(given.image))
    chain.decode(features, given.first)
    print(f"load {loaded:.1f} s, first image {time.perf_counter() - start:.1f} s")


def measure(name: str, folder: Path) -> tuple[str, dict[str, float]]:
    """Return what the process printed, and its peaks in GB: total, private, mapped."""
    command = [sys.executable, "-m", "tests.studies.memory", str(folder), "--only", name]
    peaks = dict.fromkeys(("VmHWM", "RssAnon", "RssFile"), 0.0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
            except OSError:
                break
            for what in peaks:
                if found := re.search(rf"{what}:\s+(\d+) kB", status):
                    peaks[what] = max(peaks[what], int(found[1]) * 1024 / 1e9)
            time.sleep(0.02)
        assert child.stdout is not None
        printed = child.stdout.read().strip()
    if child.returncode:
        sys.exit(f"{name}: exit code {child.returncode}")
    return printed, peaks


def main() -> None:
    """Measure all ways, or the named ones, and print a table."""
    folder, *rest = sys.argv[1:]
    if rest[:1] == ["--only"]:
        run_one(rest[1], Path(folder))
        return
    names = rest or list(WAYS)
    rows = {}
    for name in names:
        printed, rows[name] = measure(name, Path(folder))
        print(f"{name}: {printed}", flush=True)
    print("| | peak | of it private, at most | mapped, at most | over PyTorch |")
    print("|---|---:|---:|---:|---:|")
    whole = rows.get(PYTORCH, {}).get("VmHWM", float("nan"))
    for name, row in rows.items():
        cells = [f"{row[what]:.2f} GB" for what in ("VmHWM", "RssAnon", "RssFile")]
        print(f"| {name} | {' | '.join(cells)} | {row['VmHWM'] / whole:.2f} |")


if __name__ == "__main__":
    main()
