"""Measure what eight bits cost nano, by every method, and write docs/quantization.md.

Usage: python -m tests.studies.quantization FOLDER PAGE

FOLDER keeps the bundles and statistics. Pictures go to `images` beside PAGE.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from glesam_calibration import bundle_comparison, calibrator, sensitivity, yardstick
from glesam_calibration.activations import StageStatistics
from glesam_calibration.bundle_comparison import BETWEEN, Comparison
from glesam_calibration.comparison_cases import Cases
from glesam_calibration.quantize import Recipe
from glesam_evaluation.datasets import open_dataset
from glesam_evaluation.plot import draw
from glesam_runtime.bundle import Bundle, open_bundle
from glesam_runtime.manifest import STAGES, StageName

DATA = calibrator.Data(
    (), samples=64, seed=0, truth=open_dataset("scenes:4@2000000"), truth_images=4
)
JUDGED = "scenes:6@3000000"
"""Scenes that are used neither for statistics nor for the gate."""

RECIPES: Mapping[str, Recipe] = {
    "int8 (default: mse, decoder weights only)": Recipe(),
    "int8, latents past the blocks too": Recipe(float_inputs={}),
    "int8, min-max": Recipe(method="min-max"),
    "int8, percentile 99.99": Recipe(method="percentile"),
    "int8, entropy": Recipe(method="entropy"),
    "int8, smoothed with alpha 0.5": Recipe(smoothing=0.5),
    "int8, decoder's activations too": Recipe(weights_only=()),
    "int8, weights only": Recipe(weights_only=STAGES),
    "fp8 (default: min-max)": Recipe(kind="fp8"),
    "fp8, smoothed with alpha 0.5": Recipe(kind="fp8", smoothing=0.5),
    "fp8, weights only": Recipe(kind="fp8", weights_only=STAGES),
}

GUIDE = (Path(__file__).parent / "quantization.md").read_text(encoding="utf-8")

BUILD = """
import sys
import tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(sys.argv[1]):
    sys.exit("; ".join(str(parser.get_error(i)) for i in range(parser.num_errors)))
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
profile = builder.create_optimization_profile()
for index in range(network.num_inputs):
    tensor = network.get_input(index)
    if -1 in tensor.shape:
        shapes = ([n if axis == -1 else axis for axis in tensor.shape] for n in (1, 3, 8))
        profile.set_shape(tensor.name, *shapes)
config.add_optimization_profile(profile)
sys.exit(0 if builder.build_serialized_network(network, config) is not None else "not built")
"""


@dataclass(frozen=True)
class Trial:
    """The comparisons of one recipe, on the scenes JUDGED and on those of the gate."""

    name: str
    judged: Comparison
    gate: Comparison


def trials(
    judge: yardstick.Yardstick, gate: yardstick.Yardstick, seen: Mapping[StageName, StageStatistics]
) -> Iterator[Trial]:
    """Quantize with every recipe and compare."""
    for name, recipe in RECIPES.items():
        print(name, flush=True)
        yield Trial(
            name,
            sensitivity.trial(judge, seen, recipe),
            sensitivity.trial(gate, seen, recipe),
        )


def table(found: list[Trial]) -> str:
    """Return a Markdown table with a row per recipe."""
    lines = [
        "| recipe | encoder | eps | decoder | IoU mean | worst found | gate: mean | worst found "
        "| truth lost |",
        "|---|" + "---:|" * 8,
    ]
    for one in found:
        errors = [
            np.mean([image.errors[name].relative_l2 for image in one.judged.images])
            for name in ("encoder", "eps", "decoder")
        ]
        cells = [
            one.name,
            *(f"{error:.4f}" for error in errors),
            f"{one.judged.mean_iou:.4f}",
            f"{one.judged.worst_iou:.3f}",
            f"{one.gate.mean_iou:.4f}",
            f"{one.gate.worst_iou:.3f}",
            f"{one.judged.truth_lost:+.4f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def engines(bundle: Bundle) -> str:
    """Compare a bundle on ONNX Runtime and OpenVINO, and build it with TensorRT-RTX."""
    judge = yardstick.Yardstick(bundle, Cases(open_dataset(JUDGED), 4))
    kept, yardstick.ENGINE = yardstick.ENGINE, "openvino"
    try:
        measured = judge.measure(bundle)
    finally:
        yardstick.ENGINE = kept
    precision = bundle.manifest.stages["encoder"].precision
    masks = sum(row.segmenter == BETWEEN for row in measured.rows)
    return (
        f"| {precision} | {measured.mean_iou:.4f} | {measured.worst_iou:.4f} | {masks} | "
        f"{', '.join(f'{stage} {_built(bundle.graph_path(stage))}' for stage in STAGES)} |"
    )


def _built(path: Path) -> str:
    try:
        import tensorrt_rtx  # noqa: F401
    except ModuleNotFoundError:
        return "not tried"
    command = [sys.executable, "-c", BUILD, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "built" if done.returncode == 0 else f"refused: {done.stderr.strip().splitlines()[-1]}"


@contextmanager
def _step(what: str) -> Iterator[None]:
    yield
    print(what, flush=True)


TALK = calibrator.Talk(print, lambda *_: None, _step)


def made(folder: Path, recipe: Recipe, statistics: Path) -> Bundle:
    """Quantize the built-in nano from existing statistics, whether it passes its gate or not."""
    kept = calibrator.state_folder(folder)
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(statistics, kept)
    calibrator.calibrate(
        open_bundle(), folder, DATA, recipe, TALK, resume=True, allow_parity_failure=True
    )
    return open_bundle(folder)


def main(folder: Path, page: Path) -> None:
    """Measure everything and write the page."""
    folder.mkdir(parents=True, exist_ok=True)
    source = open_bundle()
    statistics = folder / ".statistics"
    _, state, seen = calibrator.take_statistics(source, DATA, statistics, statistics.exists(), TALK)
    gate = yardstick.Yardstick(source, calibrator.gate_cases(DATA))
    cases = Cases(open_dataset(JUDGED), 6)
    judge = yardstick.Yardstick(source, cases)
    found = list(trials(judge, gate, seen))
    ranking = sensitivity.rank(
        yardstick.Yardstick(source, replace(calibrator.gate_cases(DATA), count=2)),
        seen,
        Recipe(weights_only=()),
        "block",
        lambda *_: None,
    )
    pictures = page.parent / "images"
    sensitivity.draw_ranking(ranking, pictures / "sensitivity.png", 20)
    int8 = made(folder / "int8", Recipe(), statistics)
    fp8 = made(folder / "fp8", Recipe(kind="fp8", smoothing=0.5), statistics)
    state.remove()
    measured = yardstick.compare_in_parts(source, int8, cases)
    draw(bundle_comparison.results(int8, JUDGED, 0, measured), pictures / "quantization.png")
    worst = "\n".join(
        f"| {cost.stage} | `{cost.unit}` | {cost.elements:,} | {cost.iou_lost:.5f} | "
        f"{cost.stage_error:.4f} |"
        for cost in ranking.costs[:10]
    )
    text = GUIDE
    for name, part in (
        ("METHODS", table(found)),
        (
            "REPORT",
            bundle_comparison.report(source, int8, JUDGED, 0, measured).replace("\n## ", "\n### "),
        ),
        ("SENSITIVITY", worst),
        ("ENGINES", "\n".join(engines(bundle) for bundle in (int8, fp8))),
        ("JUDGED", JUDGED),
    ):
        text = text.replace("{" + name + "}", part.rstrip())
    page.write_text(text, encoding="utf-8")
    print(f"wrote {page}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
