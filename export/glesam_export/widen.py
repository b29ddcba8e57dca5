"""Widens a half-precision bundle's islands until it passes its gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from msgspec.structs import replace

from glesam_export import precision as typing
from glesam_export.checkpoints import Checkpoint
from glesam_export.families import family_of
from glesam_export.ranking import Candidate, rank
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
    StageName,
)

_STAGES: dict[ParityOutput, StageName] = {
    "encoder": "encoder",
    "enhancer": "enhancer",
    "eps": "enhancer",
    "decoder": "decoder",
}
"""Which graph an error is of."""


@dataclass(frozen=True)
class Work:
    """A bundle in the making: its weights, its form, where it lies and what it is judged by."""

    checkpoint: Checkpoint
    precision: PrecisionName
    batch: Batch
    folder: Path
    cases: Sequence[Case]
    reference: Sequence[Outputs]
    step: Step


def until_it_passes(work: Work, draft: Manifest, parity: Parity) -> tuple[Manifest, Parity]:
    """Export the worst stage again with more islands, twice as many each time.

    Args:
        work: whose files are replaced.
        draft: what was exported.
        parity: how that failed.

    Returns:
        The manifest with the islands that were added, and its figures; still outside its gate
        where nothing is left to widen.
    """
    ranked: dict[StageName, list[Candidate]] = {}
    counts: dict[StageName, int] = {}
    while not parity.passed:
        stage = _worst(parity, [s for s in ranked if counts[s] == len(ranked[s])])
        if stage is None:
            break
        if stage not in ranked:
            with work.step(f"rank the modules of the {stage}"):
                ranked[stage], counts[stage] = _rank(work, stage), 0
            if not ranked[stage]:
                continue
        counts[stage] = min(max(1, 2 * counts[stage]), len(ranked[stage]))
        names = [candidate.name for candidate in ranked[stage][: counts[stage]]]
        form = work.precision, work.batch, work.folder
        with work.step(f"export {stage} with {len(names)} more in float32"):
            widened = export_stage(work.checkpoint, stage, *form, names)
        draft = replace(draft, stages={**draft.stages, stage: widened})
        bundle = Bundle(work.folder, draft, "")
        parity = measure(bundle, work.cases, work.reference, work.step)
    return draft, parity


def _worst(parity: Parity, exhausted: Sequence[StageName]) -> StageName | None:
    """The stage that errs most, of those with something left to widen.

    Outputs past their own gate come first. Where only masks fail, the U-Net's own answer does not
    count: what the decoder sees of it is in z_H.
    """
    limit = parity.gate.stage_relative_l2
    errors = [
        (limit is not None and not error.relative_l2 <= limit, error.relative_l2, output)
        for image in parity.images
        for output, error in image.errors.items()
        if _STAGES[output] not in exhausted
    ]
    eligible = [each for each in errors if each[0] or each[2] != "eps"]
    return _STAGES[max(eligible)[2]] if eligible else None


def _rank(work: Work, stage: StageName) -> list[Candidate]:
    """Rank a stage's modules on the clear and on the most degraded image."""
    kinds = typing.island_kinds(stage, work.precision, presets_of(work.checkpoint))
    calls = [_inputs(work, stage, index) for index in (0, len(work.cases) - 1)]
    module = graph(work.checkpoint, stage)
    return rank(module, kinds, typing.DTYPES[work.precision], calls)


def _inputs(work: Work, stage: StageName, index: int) -> tuple[torch.Tensor, ...]:
    """What the reference gives a stage for a case, in the order of its graph's inputs."""
    case, outputs = work.cases[index], work.reference[index]
    embeddings = known(outputs.z_h) if stage == "decoder" else known(outputs.z_l)
    prompts = next(iter(case.prompts.values()))
    arrays = {"image": case.prepared.tensor, **outputs.high_res, **prompts}
    arrays[chain.EMBEDDINGS] = embeddings.astype(np.float32)
    preset = work.checkpoint.preset
    inputs, _ = expected_interface(stage, preset.image_size, 1, family_of(preset).contract)
    return tuple(torch.from_numpy(arrays[spec.name]) for spec in inputs)
