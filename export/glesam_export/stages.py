"""Exports one stage of a checkpoint: builds, folds, casts and traces its graph."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from glesam_export import fold, tracing
from glesam_export.checkpoints import Checkpoint
from glesam_export.enhancer.graph import EnhancerGraph
from glesam_export.enhancer.levels import LeveledEnhancerGraph
from glesam_export.families import family_of
from glesam_export.families.indexed_decoder import IndexedDecoder
from glesam_export.graphs import Graph
from glesam_export.precision import cast_graph, islands
from glesam_runtime.bundle import file_ref
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import PrecisionName, Stage, StageName

Batch = int | Literal["dynamic"]


def graph(checkpoint: Checkpoint, stage: StageName) -> Graph:
    """Build a stage's graph, folded, in float32."""
    family, preset = family_of(checkpoint.preset), checkpoint.preset
    if stage == "enhancer" and checkpoint.levels:
        steps = [level.timestep for level in checkpoint.levels]
        folded = fold.fold_levels(checkpoint.enhancer(), steps)
        return LeveledEnhancerGraph(folded, checkpoint.gamma, checkpoint.levels).eval()
    if stage == "enhancer":
        return EnhancerGraph(fold.fold(checkpoint.enhancer()), checkpoint.alpha_bar).eval()
    if stage == "encoder":
        return family.encoder_graph(checkpoint.encoder(), preset).eval()
    return family.decoder_graph(checkpoint.decoder(), preset).eval()


def export_stage(
    checkpoint: Checkpoint,
    stage: StageName,
    precision: PrecisionName,
    batch: Batch,
    folder: Path,
    further: Sequence[str] = (),
    *,
    image_index: bool = False,
    attention_nodes: bool = False,
) -> Stage:
    """Export one stage and describe the files.

    Args:
        checkpoint: the weights.
        stage: the stage to export.
        precision: precision of the graph.
        batch: N of encoder and enhancer, or "dynamic".
        folder: where to write.
        further: names of modules that are islands in addition to those of the precision.
        image_index: whether the decoder takes prompts of several images.
        attention_nodes: write each attention as one Attention node (opset 23).
    """
    module = graph(checkpoint, stage)
    presets = presets_of(checkpoint)
    cast_graph(module, stage, precision, presets, further)
    size, contract = checkpoint.preset.image_size, family_of(checkpoint.preset).contract
    if image_index and stage == "decoder":
        module = IndexedDecoder(module)
    levels = bool(checkpoint.levels)
    inputs, outputs = expected_interface(stage, size, batch, contract, image_index, levels)
    form = stage, precision, size, batch, folder, contract, image_index, levels, attention_nodes
    path, data = tracing.export(module, *form)
    del module
    gc.collect()
    return Stage(
        graph=file_ref(path),
        precision=precision,
        inputs=inputs,
        outputs=outputs,
        data=file_ref(data) if data else None,
        islands=islands(stage, precision, presets, further),
    )


def presets_of(checkpoint: Checkpoint) -> tuple[str, str]:
    """Return the names of a checkpoint's SAM and U-Net presets. Either may have its own islands."""
    return checkpoint.preset.name, checkpoint.unet.name
