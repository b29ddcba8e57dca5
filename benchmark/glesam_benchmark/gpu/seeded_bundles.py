"""Export bundles of random weights for measuring, each stage by itself and without verification.

Full-size bundles have gigabytes, so they are made where they are measured. Two processes can export
two stages at once, and bundles with the same U-Net share its graph. The self-test against the
golden file, which `time_onnxruntime` runs first, takes the place of the export's verification.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import msgspec
import onnx_ir as ir
import torch
from msgspec.structs import replace

from glesam_benchmark.gpu.plan import unet_of
from glesam_calibration.graph_files import save_graph
from glesam_export import build, stages
from glesam_export.attention.nodes import OPSET, write_attention_nodes
from glesam_export.checkpoints import Checkpoint
from glesam_export.presets import sam_preset
from glesam_export.verify.cases import make_cases
from glesam_export.verify.reference_outputs import record_reference
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime.bundle import file_ref, open_bundle
from glesam_runtime.manifest import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    STAGES,
    FileRef,
    PrecisionName,
    Stage,
    StageName,
)
from glesam_runtime.manifest_file import dump

SEED = 0


def checkpoint_of(preset: str) -> Checkpoint:
    """Return a preset's weights: the built-in ones if it has some, otherwise random ones."""
    builtin = sam_preset(preset).builtin is not None
    return make_checkpoint(WeightOptions(preset=preset, random_weights=None if builtin else SEED))


def folder_of(preset: str, precision: PrecisionName, work: Path) -> Path:
    """Return the folder of a bundle."""
    return work / f"{preset}-{precision}"


def export(preset: str, precision: PrecisionName, stage: StageName, work: Path) -> None:
    """Write one stage's graph and its record, with a dynamic batch."""
    folder = _stage_folder(preset, precision, stage, work)
    folder.mkdir(parents=True, exist_ok=True)
    made = stages.export_stage(checkpoint_of(preset), stage, precision, "dynamic", folder)
    (folder / f"{stage}.json").write_bytes(msgspec.json.encode(made))


@torch.no_grad()
def write_golden(preset: str, work: Path) -> None:
    """Write the golden file of a preset: one clear image and the reference's outputs for it."""
    folder = work / f"{preset}-golden"
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_of(preset)
    cases = make_cases(checkpoint.preset)[:1]
    outputs = record_reference(checkpoint, cases, lambda _: nullcontext())
    build.write_golden(cases[0], outputs[0], folder)


def assemble(preset: str, precision: PrecisionName, work: Path) -> Path:
    """Make a bundle of graphs and golden file that were written before; return its folder."""
    folder = folder_of(preset, precision, work)
    if (folder / MANIFEST_FILE).is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[StageName, Stage] = {}
    for stage in STAGES:
        source = _stage_folder(preset, precision, stage, work)
        record = msgspec.json.decode((source / f"{stage}.json").read_bytes(), type=Stage)
        _link(source, record.graph, folder)
        if record.data is not None:
            _link(source, record.data, folder)
        found[stage] = record
    golden = file_ref(work / f"{preset}-golden" / GOLDEN_FILE)
    _link(work / f"{preset}-golden", golden, folder)
    options = build.Options(precision, "dynamic")
    manifest = build.make_manifest(checkpoint_of(preset), options, found, golden)
    (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return folder


def with_attention_nodes(source: Path) -> Path:
    """Make a copy of a bundle in which each attention is one node; return its folder."""
    folder = source.with_name(f"{source.name}-nodes")
    if (folder / MANIFEST_FILE).is_file():
        return folder
    bundle = open_bundle(source)
    folder.mkdir(parents=True, exist_ok=True)
    rewritten: dict[StageName, Stage] = {}
    for name, stage in bundle.manifest.stages.items():
        model = ir.load(bundle.graph_path(name))
        write_attention_nodes(model)
        path = folder / stage.graph.file
        data = save_graph(model, path)
        file = file_ref(data) if data else None
        rewritten[name] = replace(stage, graph=file_ref(path), data=file)
    golden = bundle.manifest.golden
    assert golden is not None, "assemble wrote it"
    _link(source, golden, folder)
    target = replace(bundle.manifest.target, opset=OPSET)
    manifest = replace(bundle.manifest, stages=rewritten, target=target)
    (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return folder


def _stage_folder(preset: str, precision: PrecisionName, stage: StageName, work: Path) -> Path:
    """Return where a stage's graph is; an enhancer's belongs to its U-Net."""
    owner = unet_of(preset) if stage == "enhancer" else preset
    return work / "stages" / f"{owner}-{precision}-{stage}"


def _link(source: Path, ref: FileRef, folder: Path) -> None:
    """Give a file a second name. Engines read hard links, but not links to another folder."""
    place = folder / ref.file
    place.unlink(missing_ok=True)
    os.link(source / ref.file, place)
