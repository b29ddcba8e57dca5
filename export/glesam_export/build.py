"""From a checkpoint to a bundle: fold, trace, measure, and only then put it in its place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from safetensors.numpy import save

from glesam_export import auto_islands, contract, onnx, plausible, record, verify
from glesam_export.cases import Case, make_cases
from glesam_export.checkpoints import Checkpoint
from glesam_export.stages import Batch, export_stage
from glesam_runtime.bundle import Bundle, file_ref
from glesam_runtime.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    STAGES,
    FileRef,
    Manifest,
    Model,
    PrecisionName,
    Provenance,
    Stage,
    StageName,
)
from glesam_runtime.manifest_file import dump
from glesam_runtime.staging import staged_folder
from glesam_runtime.target import Target

TOOLS = ("glesam-deploy", "torch", "onnx", "onnxscript", "onnxruntime", "diffusers", "peft")
FAMILY_TOOLS = {"sam": (), "sam2": ("sam2",)}


@dataclass(frozen=True)
class Options:
    """How to export.

    Attributes:
        precision: of all three graphs.
        batch: N of encoder and enhancer, or "dynamic".
        images: verification images of the user's own; without any, a procedural scene.
        allow_parity_failure: write a bundle that is outside its gate, to inspect it.
        auto_islands: below fp32, widen the islands where a gate fails.
    """

    precision: PrecisionName = "fp32"
    batch: Batch = 1
    images: Sequence[Path] = ()
    allow_parity_failure: bool = False
    auto_islands: bool = False


def build_bundle(
    checkpoint: Checkpoint,
    destination: Path,
    options: Options,
    step: record.Step,
    warn: Callable[[str], object] = warnings.warn,
) -> Manifest:
    """Export a checkpoint and verify it; `destination` appears whole or not at all.

    Args:
        checkpoint: where the weights come from.
        destination: a new folder, an empty one, or a bundle to replace.
        options: how.
        step: announces long work.
        warn: told if the weights look wrong, as with a wrong gamma or timestep.

    Returns:
        The manifest as written, parity figures included.

    Raises:
        InputError: the destination cannot be written.
        ParityError: the bundle is outside its gate; nothing was written.
    """
    with staged_folder(destination) as folder:
        cases = make_cases(checkpoint.preset, options.images)
        reference = record.record_reference(checkpoint, cases, step)
        if found := plausible.warning(checkpoint, cases, reference, step):
            warn(found)
        stages = {}
        form = options.precision, options.batch
        for stage in STAGES:
            with step(f"export {stage} ({options.precision})"):
                stages[stage] = export_stage(checkpoint, stage, *form, folder)
        with step("golden tensors and hashes"):
            golden = _write_golden(cases[0], reference[0], folder)
            draft = _manifest(checkpoint, options, stages, golden)
        parity = verify.measure(Bundle(folder, draft, ""), cases, reference, step)
        if options.auto_islands and not parity.passed:
            exported = auto_islands.ExportedDraft(checkpoint, *form, folder, cases, reference, step)
            draft, parity = auto_islands.add_islands(exported, draft, parity)
        manifest = replace(draft, parity=parity)
        if not options.allow_parity_failure:
            untried = options.precision != "fp32" and not options.auto_islands
            remedy = "--auto-islands keeps what errs most in float32" if untried else ""
            verify.require(parity, str(destination), remedy)
        # Last, so that a folder that was cut short is no bundle to any reader.
        (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return manifest


def _write_golden(case: Case, reference: record.Outputs, folder: Path) -> FileRef:
    """The first case and what the reference made of it, for any device and language."""
    kind, prompts = next(iter(case.prompts.items()))
    low_res, iou = reference.decoded[kind]
    assert reference.z_l is not None, "recorded before"
    assert reference.z_h is not None, "recorded before"
    tensors = {
        "image": case.image,
        "image_embeddings": reference.z_l,
        **reference.high_res,
        "enhanced_embeddings": reference.z_h.astype(np.float32),
        "low_res_masks": low_res,
        "iou_predictions": iou,
        **prompts,
    }
    path = folder / GOLDEN_FILE
    path.write_bytes(save({name: np.ascontiguousarray(t) for name, t in tensors.items()}))
    return file_ref(path)


def _manifest(
    checkpoint: Checkpoint,
    options: Options,
    stages: dict[StageName, Stage],
    golden: FileRef,
) -> Manifest:
    """Everything but the parity figures."""
    family = FAMILY_TOOLS[checkpoint.preset.family]
    tools = {name: metadata.version(name) for name in (*TOOLS, *family)}
    return Manifest(
        format="glesam-bundle",
        version=1,
        model=Model(
            family=checkpoint.preset.family,
            preset=checkpoint.preset.name,
            unet=checkpoint.unet.name,
            trained=checkpoint.trained,
            gamma=checkpoint.gamma,
            timestep=checkpoint.timestep,
            alpha_bar=checkpoint.alpha_bar,
        ),
        stages=stages,
        preprocessing=contract.preprocessing(checkpoint.preset),
        postprocessing=contract.postprocessing(checkpoint.preset),
        coordinates=contract.coordinates(checkpoint.preset),
        target=Target(engine="onnx", opset=onnx.OPSETS[options.precision], batch=options.batch),
        provenance=Provenance(sources=checkpoint.sources(), weights=checkpoint.origin, tools=tools),
        parity=None,
        golden=golden,
    )
