"""Implements --auto-islands, which makes a half-precision bundle pass its gate.

It adds float32 islands to the stage with the largest error and exports that stage again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace

from glesam_export import precision
from glesam_export.checkpoints import Checkpoint
from glesam_export.families import family_of
from glesam_export.island_ranking import Candidate, rank
from glesam_export.stages import Batch, export_stage, graph, presets_of
from glesam_export.verify.cases import Case
from glesam_export.verify.parity import measure
from glesam_export.verify.reference_outputs import Outputs, Step, known
from glesam_runtime import chain
from glesam_runtime.bundle import Bundle
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import (
    Manifest,
    Parity,
    ParityOutput,
    PrecisionName,
    Stage,
    StageName,
)
from glesam_runtime.timestep_levels import LEVEL

_STAGE_OF: dict[ParityOutput, StageName] = {
    "encoder": "encoder",
    "enhancer": "enhancer",
    "eps": "enhancer",
    "decoder": "decoder",
}
"""The stage that computes each measured output."""


@dataclass(frozen=True)
class ExportedDraft:
    """Describes an exported bundle that does not pass its gate yet.

    Attributes:
        checkpoint: its weights.
        precision: of its graphs.
        batch: N of encoder and enhancer, or "dynamic".
        folder: where its files are.
        cases: the verification images and prompts.
        reference: the outputs of the PyTorch reference for each case.
        step: reports progress.
        image_index: whether its decoder takes prompts of several images.
        attention_nodes: whether each of its attentions is one node.
    """

    checkpoint: Checkpoint
    precision: PrecisionName
    batch: Batch
    folder: Path
    cases: Sequence[Case]
    reference: Sequence[Outputs]
    step: Step
    image_index: bool = False
    attention_nodes: bool = False

    def export(self, stage: StageName, further: Sequence[str]) -> Stage:
        """Export a stage again, with more islands."""
        return export_stage(
            *(self.checkpoint, stage, self.precision, self.batch, self.folder, further),
            image_index=self.image_index,
            attention_nodes=self.attention_nodes,
        )


def add_islands(
    draft: ExportedDraft, manifest: Manifest, parity: Parity
) -> tuple[Manifest, Parity]:
    """Add islands to the worst stage, twice as many each time, until the bundle passes.

    Args:
        draft: the exported bundle; its files are replaced.
        manifest: its manifest.
        parity: its figures, outside the gate.

    Returns:
        The manifest with the added islands, and its figures. They are still outside the gate if
        no module is left that could become an island.
    """
    ranked: dict[StageName, list[Candidate]] = {}
    counts: dict[StageName, int] = {}
    while not parity.passed:
        stage = _worst(parity, [s for s in ranked if counts[s] == len(ranked[s])])
        if stage is None:
            break
        if stage not in ranked:
            with draft.step(f"rank the modules of the {stage}"):
                ranked[stage], counts[stage] = _rank(draft, stage), 0
            if not ranked[stage]:
                continue
        counts[stage] = min(max(1, 2 * counts[stage]), len(ranked[stage]))
        names = [candidate.name for candidate in ranked[stage][: counts[stage]]]
        with draft.step(f"export {stage} with {len(names)} more in float32"):
            exported = draft.export(stage, names)
        manifest = replace(manifest, stages={**manifest.stages, stage: exported})
        bundle = Bundle(draft.folder, manifest, "")
        parity = measure(bundle, draft.cases, draft.reference, draft.step)
    return manifest, parity


def _worst(parity: Parity, exhausted: Sequence[StageName]) -> StageName | None:
    """Return the stage with the largest error among those that can get more islands.

    Outputs outside their own gate come first. If only the masks fail, eps does not count: the
    decoder sees only its effect on z_H.
    """
    limit = parity.gate.stage_relative_l2
    errors = [
        (limit is not None and not error.relative_l2 <= limit, error.relative_l2, output)
        for image in parity.images
        for output, error in image.errors.items()
        if _STAGE_OF[output] not in exhausted
    ]
    eligible = [each for each in errors if each[0] or each[2] != "eps"]
    return _STAGE_OF[max(eligible)[2]] if eligible else None


def _rank(draft: ExportedDraft, stage: StageName) -> list[Candidate]:
    """Rank a stage's modules on the clear image and on the most degraded one."""
    kinds = precision.island_kinds(stage, draft.precision, presets_of(draft.checkpoint))
    calls = [_inputs(draft, stage, index) for index in (0, len(draft.cases) - 1)]
    module = graph(draft.checkpoint, stage)
    return rank(module, kinds, precision.DTYPES[draft.precision], calls)


def _inputs(draft: ExportedDraft, stage: StageName, index: int) -> tuple[torch.Tensor, ...]:
    """Return the reference's inputs of a stage for one case, in the order of the graph's inputs."""
    case, outputs = draft.cases[index], draft.reference[index]
    embeddings = known(outputs.z_h) if stage == "decoder" else known(outputs.z_l)
    prompts = next(iter(case.prompts.values()))
    arrays = {"image": case.prepared.tensor, **outputs.high_res, **prompts}
    arrays[chain.EMBEDDINGS] = embeddings.astype(np.float32)
    preset = draft.checkpoint.preset
    levels = draft.checkpoint.levels
    if case.timestep is not None:
        arrays[LEVEL] = np.asarray([levels.index(case.timestep)], np.float32)
    contract = family_of(preset).contract
    inputs, _ = expected_interface(stage, preset.image_size, 1, contract, levels=bool(levels))
    return tuple(torch.from_numpy(arrays[spec.name]) for spec in inputs)
