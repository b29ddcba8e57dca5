"""The whole of a calibration: choose, observe, quantize, measure, and only then put in place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from msgspec import structs

from glesam_calibration import compare, sensitivity
from glesam_calibration.cases import Cases
from glesam_calibration.comparison import Comparison
from glesam_calibration.images import Samples, choose_samples
from glesam_calibration.largest import LargestObjects
from glesam_calibration.observe import BUDGET, Observed, Progress, observe
from glesam_calibration.qdq import FORMATS
from glesam_calibration.quantize import Recipe, require_float, write_stages
from glesam_calibration.state import Plan, State
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
"""Announces long work for as long as a block runs."""


@dataclass(frozen=True)
class Data:
    """What is run: to take statistics, and to judge by."""

    places: Sequence[Path]
    """Images of the user's own; none is procedural ones."""
    samples: int
    seed: int
    truth: Dataset
    """Images with masks, none of them among those that statistics are taken of."""
    truth_images: int


@dataclass(frozen=True)
class Talk:
    """Who is told what."""

    warn: Callable[[str], object]
    progress: Progress
    step: Step


@dataclass(frozen=True)
class Target:
    """A mean IoU to reach by keeping layers in float."""

    iou: float
    unit: sensitivity.Unit = "layer"
    ranking: sensitivity.Ranking | None = None
    """If it is known already."""


def state_folder(destination: Path) -> Path:
    """Where statistics for a bundle are kept until it is written."""
    final = destination.resolve()
    return final.with_name(f".{final.name}.calibration")


def take_statistics(
    bundle: Bundle, data: Data, folder: Path, resume: bool, talk: Talk, budget: int = BUDGET
) -> tuple[Samples, State, dict[StageName, Observed]]:
    """Choose samples and run them.

    Args:
        bundle: of float32 graphs.
        data: what to run.
        folder: keeps statistics.
        resume: go on from what is in it.
        talk: told what happens.
        budget: bytes of watched tensors in one run.

    Raises:
        BundleError: the bundle is quantized, or typed in half precision.
        InputError: no image can be used, or the folder is another calibration's.
    """
    require_float(bundle)
    samples = choose_samples(data.places, data.samples, data.seed, talk.warn)
    if samples.procedural:
        talk.warn(
            "no images given: calibrating on procedural ones; your own, as the robot sees them, "
            "are better"
        )
    plan = Plan(
        bundle.sha256,
        tuple((s.record.image, s.record.sha256, s.record.level) for s in samples.samples),
        data.seed,
        budget,
        metadata.version("onnxruntime"),
    )
    state = State(folder, plan, resume)
    return samples, state, observe(bundle, samples, state, talk.progress, budget)


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
    """Quantize a bundle; `destination` appears whole or not at all.

    Args:
        bundle: of float32 graphs.
        destination: a new folder, an empty one, or a bundle to replace.
        data: what to run.
        recipe: how to quantize.
        talk: told what happens.
        target: keep layers in float until it is reached.
        resume: go on from the statistics that an interrupted calibration left.
        allow_parity_failure: write a bundle outside its gate.

    Returns:
        The manifest as written, and the figures of every mask.

    Raises:
        BundleError: the bundle cannot be quantized.
        InputError: no image can be used, or the destination cannot be written.
        ParityError: the result is outside its gate; nothing was written, statistics are kept.
    """
    require_float(bundle)
    with staged_folder(destination) as folder:
        samples, state, seen = take_statistics(
            bundle, data, state_folder(destination), resume, talk
        )
        with talk.step("float bundle"):
            yardstick = compare.Yardstick(bundle, gate_cases(data))
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
            _require(manifest, measured, destination)
        # Last, so that a folder that was cut short is no bundle to any reader.
        (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    state.remove()
    return manifest, measured


def gate_cases(data: Data) -> Cases:
    """What the gate is measured on."""
    return Cases(LargestObjects(data.truth), data.truth_images, seed=data.seed)


def _for_target(
    yardstick: compare.Yardstick,
    seen: dict[StageName, Observed],
    recipe: Recipe,
    target: Target,
    talk: Talk,
) -> Recipe:
    """The recipe with the fewest layers in float that reach the target."""
    gate = gate_for(recipe.kind, yardstick.bundle.manifest.model.trained)
    ranking = target.ranking
    if ranking is None:
        with talk.step(f"sensitivity of each {target.unit}"):
            ranking = sensitivity.rank(
                yardstick, seen, recipe, target.unit, lambda done, total: None
            )
    with talk.step(f"fewest in float for a mean IoU of {target.iou:g}"):
        kept = sensitivity.keep_fewest(yardstick, seen, recipe, ranking, target.iou, gate)
    return replace(recipe, float_layers=kept)


def _parity(measured: Comparison, recipe: Recipe, bundle: Bundle) -> Parity:
    gate = gate_for(recipe.kind, bundle.manifest.model.trained)
    return Parity(
        backend=f"{compare.ENGINE}, against the float bundle {bundle.sha256[:12]}",
        gate=gate,
        passed=not measured.failures(gate),
        images=measured.images,
    )


def _require(manifest: Manifest, measured: Comparison, destination: Path) -> None:
    assert manifest.parity is not None, "measured before"
    if not manifest.parity.passed:
        problems = "; ".join(measured.failures(manifest.parity.gate))
        raise ParityError(
            f"{destination}: outside its gate: {problems}. Statistics are kept: with --resume try "
            "--target-iou, another --method, or --allow-parity-failure"
        )


def _manifest(
    bundle: Bundle, stages: dict[StageName, Stage], recipe: Recipe, samples: Samples
) -> Manifest:
    """Everything but the parity figures."""
    old = bundle.manifest
    tools = {**old.provenance.tools, "onnx-ir": metadata.version("onnx-ir")}
    opset = max(old.target.opset, FORMATS[recipe.kind].opset)
    return structs.replace(
        old,
        stages=stages,
        target=structs.replace(old.target, opset=opset),
        provenance=structs.replace(old.provenance, tools=tools),
        parity=None,
        calibration=Calibration(
            source=bundle.sha256,
            weights_only=tuple(stage for stage in STAGES if stage in recipe.weights_only),
            method=recipe.ranges_by,
            percentile=recipe.percentile if recipe.ranges_by == "percentile" else None,
            smoothing=recipe.smoothing,
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
