"""Run a calibration: choose images, collect statistics, quantize, compare, write the bundle."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from msgspec import UNSET, structs

from glesam_calibration import sensitivity
from glesam_calibration.activations import BUDGET, Progress, StageStatistics, collect_statistics
from glesam_calibration.bundle_comparison import Comparison
from glesam_calibration.calibration_set import CalibrationSet, choose_samples
from glesam_calibration.comparison_cases import Cases, LargestObjects
from glesam_calibration.kept_statistics import KeptStatistics, StatisticsPlan
from glesam_calibration.qdq import FORMATS
from glesam_calibration.quantize import (
    Recipe,
    require_attention,
    require_float,
    write_stages,
)
from glesam_calibration.yardstick import ENGINE, Yardstick
from glesam_evaluation.datasets import Dataset
from glesam_runtime.bundle import Bundle
from glesam_runtime.compare import gate_for
from glesam_runtime.errors import ParityError
from glesam_runtime.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    STAGES,
    Calibration,
    Manifest,
    Parity,
    Stage,
    StageName,
)
from glesam_runtime.manifest_file import dump
from glesam_runtime.staging import staged_folder

Step = Callable[[str], AbstractContextManager[object]]
"""Returns a context manager that reports a long step while its block runs."""


@dataclass(frozen=True)
class Data:
    """The images of a calibration: for statistics, and for the comparison with the float bundle."""

    places: Sequence[Path]
    """Image files, folders or lists of the user; empty uses procedural images."""
    samples: int
    seed: int
    truth: Dataset
    """Images with masks for the comparison. None of them may be used for statistics."""
    truth_images: int


@dataclass(frozen=True)
class Talk:
    """Functions that a calibration calls to report what it does."""

    warn: Callable[[str], object]
    progress: Progress
    step: Step


@dataclass(frozen=True)
class Target:
    """A mean IoU to reach by keeping layers in float."""

    iou: float
    unit: sensitivity.Unit = "layer"
    ranking: sensitivity.Ranking | None = None
    """A ranking that exists already; None measures one."""


def state_folder(destination: Path) -> Path:
    """Return the folder that keeps the statistics of a bundle until the bundle is written."""
    final = destination.resolve()
    return final.with_name(f".{final.name}.calibration")


def take_statistics(
    bundle: Bundle,
    data: Data,
    folder: Path,
    resume: bool,
    talk: Talk,
    budget: int = BUDGET,
    attention: tuple[StageName, ...] = (),
) -> tuple[CalibrationSet, KeptStatistics, dict[StageName, StageStatistics]]:
    """Choose calibration images and collect statistics of them.

    Args:
        bundle: bundle of float32 graphs.
        data: images to run.
        folder: folder that keeps the statistics.
        resume: continue from the statistics in the folder.
        talk: functions that report progress.
        budget: bytes of watched tensors per run.
        attention: stages of which queries, keys and values are watched too.

    Raises:
        BundleError: the bundle is quantized, or its graphs are half precision.
        InputError: no image can be used, or the folder belongs to another calibration.
    """
    require_float(bundle)
    samples = choose_samples(data.places, data.samples, data.seed, talk.warn)
    if samples.procedural:
        talk.warn(
            "no images given: calibrating on procedural ones; images of your own application are "
            "better"
        )
    plan = StatisticsPlan(
        bundle.sha256,
        tuple((s.record.image, s.record.sha256, s.record.level) for s in samples.samples),
        data.seed,
        budget,
        metadata.version("onnxruntime"),
        attention,
    )
    state = KeptStatistics(folder, plan, resume)
    seen = collect_statistics(bundle, samples, state, talk.progress, budget, state.plan.attention)
    return samples, state, seen


def calibrate(
    bundle: Bundle,
    destination: Path,
    data: Data,
    recipe: Recipe,
    talk: Talk,
    *,
    target: Target | None = None,
    resume: bool = False,
    allow_parity_failure: bool = False,
) -> tuple[Manifest, Comparison]:
    """Quantize a bundle and write the result, completely or not at all.

    Args:
        bundle: bundle of float32 graphs.
        destination: a new folder, an empty one, or a bundle to replace.
        data: images for statistics and for the comparison.
        recipe: how to quantize.
        talk: functions that report progress.
        target: a mean IoU to reach by keeping layers in float.
        resume: continue from the statistics that an interrupted calibration kept.
        allow_parity_failure: write the bundle even if it fails its gate or its golden check.

    Returns:
        The manifest as written, and the comparison with the float bundle.

    Raises:
        BundleError: the bundle cannot be quantized.
        InputError: no image can be used, or the destination cannot be written.
        ParityError: the result fails its gate or its golden check. Nothing is written, and the
            statistics are kept.
    """
    require_float(bundle)
    require_attention(bundle, recipe)
    with staged_folder(destination) as folder:
        samples, state, seen = take_statistics(
            *(bundle, data, state_folder(destination), resume, talk),
            attention=recipe.attention_stages,
        )
        with talk.step("float bundle"):
            yardstick = Yardstick(bundle, gate_cases(data))
        if target is not None:
            recipe = _for_target(yardstick, seen, recipe, target, talk)
        with talk.step("quantize"):
            stages = write_stages(bundle, seen, recipe, folder)
            shutil.copyfile(bundle.golden_path, folder / GOLDEN_FILE)
            draft = _manifest(bundle, stages, recipe, samples)
        with talk.step("quantized bundle"):
            measured = yardstick.judge(Bundle(folder, draft, ""))
        manifest = structs.replace(draft, parity=_parity(measured, recipe, bundle))
        if not allow_parity_failure:
            _require(manifest, measured, destination, recipe)
        # Written last, so that no reader accepts an incomplete folder as a bundle.
        (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    state.remove()
    return manifest, measured


def gate_cases(data: Data) -> Cases:
    """Return the cases that the gate is measured on."""
    return Cases(LargestObjects(data.truth), data.truth_images, seed=data.seed)


def _for_target(
    yardstick: Yardstick,
    seen: dict[StageName, StageStatistics],
    recipe: Recipe,
    target: Target,
    talk: Talk,
) -> Recipe:
    """Return the recipe with the fewest layers in float that reaches the target."""
    gate = gate_for(recipe.kind, yardstick.bundle.manifest.model.trained)
    ranking = target.ranking
    if ranking is None:
        with talk.step(f"sensitivity of each {target.unit}"):
            layers_alone = replace(recipe, attention=False)
            ranking = sensitivity.rank(
                yardstick, seen, layers_alone, target.unit, lambda done, total: None
            )
    with talk.step(f"layers in float for a mean IoU of {target.iou:g}"):
        kept = sensitivity.keep_fewest(yardstick, seen, recipe, ranking, target.iou, gate)
    return replace(recipe, float_layers=kept)


def _parity(measured: Comparison, recipe: Recipe, bundle: Bundle) -> Parity:
    gate = gate_for(recipe.kind, bundle.manifest.model.trained)
    return Parity(
        backend=f"{ENGINE}, against the float bundle {bundle.sha256[:12]}",
        gate=gate,
        passed=not measured.failures(gate),
        images=measured.images,
    )


def _require(manifest: Manifest, measured: Comparison, destination: Path, recipe: Recipe) -> None:
    assert manifest.parity is not None, "measured before"
    if not manifest.parity.passed:
        problems = "; ".join(measured.failures(manifest.parity.gate))
        without = "without --attention, " if recipe.attention else ""
        raise ParityError(
            f"{destination}: not written, because it fails its gate: {problems}. The "
            f"statistics are kept: "
            f"use --resume {without}with --target-iou, another --method, or --allow-parity-failure"
        )


def _manifest(
    bundle: Bundle, stages: dict[StageName, Stage], recipe: Recipe, samples: CalibrationSet
) -> Manifest:
    """Return the manifest without its parity."""
    old = bundle.manifest
    tools = {**old.provenance.tools, "onnx-ir": metadata.version("onnx-ir")}
    opset = max(old.target.opset, FORMATS[recipe.kind].opset)
    return structs.replace(
        old,
        stages=stages,
        target=structs.replace(old.target, opset=opset),
        provenance=structs.replace(old.provenance, tools=tools),
        parity=None,
        enhancement_gate=UNSET,  # it was learned for the float encoder
        calibration=Calibration(
            source=bundle.sha256,
            weights_only=tuple(stage for stage in STAGES if stage in recipe.weights_only),
            method=recipe.ranges_by,
            percentile=recipe.percentile if recipe.ranges_by == "percentile" else None,
            smoothing=recipe.smoothing,
            attention=recipe.attention_stages or UNSET,
            seed=samples.seed,
            procedural=samples.procedural,
            samples=tuple(sample.record for sample in samples.samples),
            float_layers={
                stage: tuple(recipe.float_layers[stage])
                for stage in STAGES
                if recipe.float_layers.get(stage)
            },
        ),
    )
