"""One stage of a checkpoint: its graph, folded, typed and traced to a file."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from glesam_export import fold, onnx
from glesam_export import precision as typing
from glesam_export.checkpoints import Checkpoint
from glesam_export.graphs.base import Graph
from glesam_export.graphs.decoder import DecoderGraph
from glesam_export.graphs.encoder import EncoderGraph
from glesam_export.graphs.enhancer import EnhancerGraph
from glesam_runtime.bundle import file_ref
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import PrecisionName, Stage, StageName

Batch = int | Literal["dynamic"]


def graph(checkpoint: Checkpoint, stage: StageName) -> Graph:
    """A stage's graph module, folded, in float32."""
    if stage == "enhancer":
        return EnhancerGraph(fold.fold(checkpoint.enhancer()), checkpoint.alpha_bar).eval()
    if checkpoint.preset.family == "sam2":
        return _sam2_graph(checkpoint, stage)
    if stage == "encoder":
        return EncoderGraph(checkpoint.encoder()).eval()
    decoder = checkpoint.decoder()
    return DecoderGraph(decoder.prompt_encoder, decoder.mask_decoder).eval()


def _sam2_graph(checkpoint: Checkpoint, stage: StageName) -> Graph:
    """SAM 2's encoder or decoder; only here is its package needed."""
    from glesam_export.graphs.decoder_sam2 import Sam2DecoderGraph
    from glesam_export.graphs.encoder_sam2 import Sam2EncoderGraph
    from glesam_export.reference_sam2 import Sam2Encoder

    if stage == "encoder":
        encoder = checkpoint.encoder()
        assert isinstance(encoder, Sam2Encoder)
        return Sam2EncoderGraph(encoder, checkpoint.preset.image_size).eval()
    decoder = checkpoint.decoder()
    return Sam2DecoderGraph(decoder.prompt_encoder, decoder.mask_decoder).eval()


def export_stage(
    checkpoint: Checkpoint,
    stage: StageName,
    precision: PrecisionName,
    batch: Batch,
    folder: Path,
    further: Sequence[str] = (),
) -> Stage:
    """Fold, type and trace one stage, and describe what was written.

    Args:
        checkpoint: where the weights come from.
        stage: which.
        precision: of its graph.
        batch: N of encoder and enhancer, or "dynamic".
        folder: where to.
        further: modules of its graph that are islands beside those of its precision.
    """
    module = graph(checkpoint, stage)
    presets = presets_of(checkpoint)
    typing.apply(module, stage, precision, presets, further)
    size, family = checkpoint.preset.image_size, checkpoint.preset.family
    path, data = onnx.export(module, stage, precision, size, batch, folder, family)
    del module
    gc.collect()
    inputs, outputs = expected_interface(stage, size, batch, family)
    return Stage(
        graph=file_ref(path),
        precision=precision,
        inputs=inputs,
        outputs=outputs,
        data=file_ref(data) if data else None,
        islands=typing.islands(stage, precision, presets, further),
    )


def presets_of(checkpoint: Checkpoint) -> tuple[str, str]:
    """Names of a checkpoint's SAM and U-Net, which may need islands of their own."""
    return checkpoint.preset.name, checkpoint.unet.name
