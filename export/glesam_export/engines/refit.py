"""Gives engines other weights (another LoRA or gamma) without a rebuild.

An engine built with --strip-weights holds no weights. Its bundle stores an ONNX graph beside each
engine, and the runtime takes the weights from there. Refitting replaces that graph by one that
differs in its weights only. It compiles nothing and needs no GPU.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import onnx_ir as ir
from msgspec.structs import replace

from glesam_export.attention.for_tensorrt import write_fusible
from glesam_export.verify.reference_outputs import Step
from glesam_runtime.bundle import Bundle, file_ref
from glesam_runtime.enhancing import with_own_gate
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import MANIFEST_FILE, STAGES, FileRef, Manifest, Stage, StageName
from glesam_runtime.manifest_file import dump
from glesam_runtime.staging import staged_folder


def refit_bundle(engines: Bundle, source: Bundle, destination: Path, step: Step) -> Manifest:
    """Write a bundle of the same engines with the weights of another ONNX bundle.

    Args:
        engines: a bundle compiled with --strip-weights.
        source: an ONNX bundle whose graphs differ in their weights only.
        destination: a new folder, an empty folder, or a bundle to replace.
        step: reports progress.

    Returns:
        The new manifest: the target of `engines`, everything else from `source`.

    Raises:
        InputError: the engines hold their weights, or the graphs differ in more than weights.
    """
    build = engines.manifest.target.build
    if build is None or not build.stripped:
        raise InputError(
            f"{engines.path}: its engines hold their weights; compile with --strip-weights"
        )
    if source.manifest.target.engine != "onnx":
        raise InputError(f"{source.path}: holds engines; pass the ONNX bundle with the new weights")
    _require_same_model(engines, source)
    with staged_folder(destination) as folder:
        stages = {}
        for stage in STAGES:
            with step(f"weights of the {stage}"):
                stages[stage] = _refit(engines, source, stage, folder)
        shutil.copyfile(source.golden_path, folder / source.golden_path.name)
        target = replace(engines.manifest.target, build=replace(build, source=source.sha256))
        manifest = with_own_gate(replace(source.manifest, stages=stages, target=target))
        (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return manifest


def _require_same_model(engines: Bundle, source: Bundle) -> None:
    """Reject a model that differs in what is compiled into the engines.

    Gamma may differ, because the fold puts it into weights.
    """
    old, new = engines.manifest.model, source.manifest.model
    for field in ("family", "preset", "unet", "timestep", "alpha_bar", "timestep_levels"):
        if getattr(old, field) != getattr(new, field):
            raise InputError(
                f"{source.path}: has {field} {getattr(new, field)}, the engines have "
                f"{getattr(old, field)}; compile it instead"
            )


def _refit(engines: Bundle, source: Bundle, stage: StageName, folder: Path) -> Stage:
    """Copy one stage's engine and put the new graph beside it."""
    old, new = engines.manifest.stages[stage], source.manifest.stages[stage]
    weights = engines.weights_path(stage)
    assert weights is not None, "the manifest's reader checks it"
    with tempfile.TemporaryDirectory() as scratch:
        graph, _ = write_fusible(source.graph_path(stage), Path(scratch), new.precision)
        if old.precision != new.precision or _structure(graph) != _structure(weights):
            raise InputError(
                f"{source.path}: its {stage} differs from the engine's in more than weights; "
                "compile it instead"
            )
        described, data = keep_weights(graph, folder)
    shutil.copyfile(engines.graph_path(stage), folder / old.graph.file)
    return replace(old, weights=described, data=data)


def keep_weights(graph: Path, folder: Path) -> tuple[FileRef, FileRef | None]:
    """Copy a graph, and its .data file if it has one, beside an engine without weights."""
    copies = []
    for path in (graph, graph.with_name(f"{graph.name}.data")):
        if path.exists():
            shutil.copyfile(path, folder / path.name)
            copies.append(file_ref(folder / path.name))
    return copies[0], copies[1] if len(copies) > 1 else None


def _structure(path: Path) -> list[object]:
    """Return everything in a graph except the values of its weights.

    An engine has all of this compiled in.
    """
    graph = ir.load(path).graph
    values = {
        name: (value.dtype, tuple(value.shape or ())) for name, value in graph.initializers.items()
    }
    nodes = [
        (
            node.op_type,
            tuple(value.name if value is not None else "" for value in node.inputs),
            tuple(value.name for value in node.outputs),
            tuple(
                sorted((name, _as_text(attribute)) for name, attribute in node.attributes.items())
            ),
        )
        for node in graph
    ]
    return [sorted(values.items()), nodes]


def _as_text(attribute: ir.Attr) -> str:
    """Return an attribute's value as text. The text of a tensor contains its numbers."""
    value = attribute.value
    return str(value.numpy().tolist()) if isinstance(value, ir.TensorProtocol) else str(value)
