"""Builds a bundle from a checkpoint: folds, traces, verifies, and only then puts it in place."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

import numpy as np
from msgspec import UNSET
from msgspec.structs import replace
from numpy.typing import NDArray
from safetensors.numpy import save

from glesam_export import auto_islands, tracing
from glesam_export.attention import nodes as attention
from glesam_export.checkpoints import Checkpoint
from glesam_export.families import family_of
from glesam_export.stages import Batch, export_stage
from glesam_export.verify import latent_check, parity, reference_outputs
from glesam_export.verify.cases import LEVELS, Case, Level, at_every_level, make_cases
from glesam_export.verify.reference_outputs import Outputs, Step, known
from glesam_runtime.bundle import Bundle, file_ref
from glesam_runtime.manifest import (
    GOLDEN_FILE,
    IMAGE_INDEX,
    MANIFEST_FILE,
    RELEASED_INPUT,
    STAGES,
    TIMESTEP_LEVELS,
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
from glesam_runtime.timestep_levels import golden_name

TOOLS = ("glesam-deploy", "torch", "onnx", "onnxscript", "onnxruntime", "diffusers", "peft")
"""Packages whose versions the manifest records. A family may add its own."""


@dataclass(frozen=True)
class Options:
    """Settings of an export.

    Attributes:
        precision: precision of all three graphs.
        batch: N of encoder and enhancer, or "dynamic".
        images: the user's verification images; empty uses a procedural scene.
        allow_parity_failure: write the bundle even if it fails its gate.
        auto_islands: in fp16 and bf16, add islands until the gate passes.
        image_index: write a decoder that takes prompts of several images in one call.
        levels: degradation levels of the verification.
        attention_nodes: write each attention as one Attention node (opset 23).
    """

    precision: PrecisionName = "fp32"
    batch: Batch = 1
    images: Sequence[Path] = ()
    allow_parity_failure: bool = False
    auto_islands: bool = False
    image_index: bool = False
    levels: Sequence[Level] = LEVELS
    attention_nodes: bool = False

    @property
    def opset(self) -> int:
        """Return the opset of the graphs."""
        opset = tracing.OPSETS[self.precision]
        return max(opset, attention.OPSET) if self.attention_nodes else opset


def build_bundle(
    checkpoint: Checkpoint,
    destination: Path,
    options: Options,
    step: Step,
    warn: Callable[[str], object] = warnings.warn,
) -> Manifest:
    """Export a checkpoint and verify the bundle. `destination` appears whole or not at all.

    Args:
        checkpoint: the weights.
        destination: a new folder, an empty one, or a bundle to replace.
        options: settings of the export.
        step: reports long steps.
        warn: called with a message if gamma or timestep look wrong for the weights.

    Returns:
        The manifest as written, with the parity figures.

    Raises:
        InputError: the destination cannot be written.
        ParityError: the bundle fails its gate. Nothing was written.
    """
    with staged_folder(destination) as folder:
        pictures = make_cases(checkpoint.preset, options.images, options.levels)
        cases = at_every_level(pictures, checkpoint)
        reference = reference_outputs.record_reference(checkpoint, cases, step)
        own = reference[: len(pictures)]  # those at the checkpoint's own timestep
        if found := latent_check.warning(checkpoint, pictures, own, step):
            warn(found)
        stages = {}
        form = options.precision, options.batch
        for stage in STAGES:
            with step(f"export {stage} ({options.precision})"):
                indexed = options.image_index and stage == "decoder"
                stages[stage] = export_stage(
                    *(checkpoint, stage, *form, folder),
                    image_index=indexed,
                    attention_nodes=options.attention_nodes,
                )
        with step("golden tensors and hashes"):
            others = at_other_levels(cases, reference)
            golden = write_golden(cases[0], reference[0], folder, others)
            draft = make_manifest(checkpoint, options, stages, golden)
        measured = parity.measure(Bundle(folder, draft, ""), cases, reference, step)
        if options.auto_islands and not measured.passed:
            exported = auto_islands.ExportedDraft(
                *(checkpoint, *form, folder, cases, reference, step),
                *(options.image_index, options.attention_nodes),
            )
            draft, measured = auto_islands.add_islands(exported, draft, measured)
        manifest = replace(draft, parity=measured)
        if not options.allow_parity_failure:
            untried = options.precision != "fp32" and not options.auto_islands
            remedy = "--auto-islands keeps the least accurate modules in float32" if untried else ""
            parity.require(measured, str(destination), remedy)
        # Written last, so that no reader accepts an incomplete folder as a bundle.
        (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return manifest


def at_other_levels(
    cases: Sequence[Case], outputs: Sequence[Outputs]
) -> dict[str, NDArray[np.float32]]:
    """Return the first picture's enhanced latents at all timesteps but the default, by name."""
    first = cases[0]
    return {
        golden_name(case.timestep.timestep): known(out.z_h).astype(np.float32)
        for case, out in zip(cases, outputs, strict=True)
        if case.timestep is not None
        and case.timestep != first.timestep
        and case.prepared is first.prepared
    }


def write_golden(
    case: Case,
    reference: Outputs,
    folder: Path,
    others: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> FileRef:
    """Write a case and the reference's outputs for it, for tests on any device.

    Args:
        case: the picture and its prompts.
        reference: what the reference made of it.
        folder: where the file goes.
        others: what `at_other_levels` returned, for an enhancer with several timesteps.
    """
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
        **others,
    }
    path = folder / GOLDEN_FILE
    path.write_bytes(save({name: np.ascontiguousarray(t) for name, t in tensors.items()}))
    return file_ref(path)


def make_manifest(
    checkpoint: Checkpoint,
    options: Options,
    stages: dict[StageName, Stage],
    golden: FileRef,
) -> Manifest:
    """Make the manifest without the parity figures."""
    preset, family = checkpoint.preset, family_of(checkpoint.preset)
    requires: tuple[str, ...] = (RELEASED_INPUT,) if preset.input == "released" else ()
    requires += (IMAGE_INDEX,) if options.image_index else ()
    requires += (TIMESTEP_LEVELS,) if checkpoint.levels else ()
    tools = {name: metadata.version(name) for name in (*TOOLS, *family.tools)}
    return Manifest(
        format="glesam-bundle",
        version=1,
        requires=requires or UNSET,
        model=Model(
            family=family.contract,
            preset=preset.name,
            unet=checkpoint.unet.name,
            trained=checkpoint.trained,
            gamma=checkpoint.gamma,
            timestep=checkpoint.timestep,
            alpha_bar=checkpoint.alpha_bar,
            timestep_levels=checkpoint.levels or UNSET,
        ),
        stages=stages,
        preprocessing=family.preprocessing(preset),
        postprocessing=family.postprocessing(preset),
        coordinates=family.coordinates(preset),
        everything=family.everything(preset),
        target=Target(engine="onnx", opset=options.opset, batch=options.batch),
        provenance=Provenance(sources=checkpoint.sources(), weights=checkpoint.origin, tools=tools),
        parity=None,
        golden=golden,
    )
