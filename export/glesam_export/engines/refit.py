"""Other weights for engines that were compiled without: another LoRA or gamma, no rebuild.

Nothing is compiled and no GPU is needed: such a bundle keeps its engines and, beside each, the ONNX
graph that the runtime takes the weights from. Another graph may take its place if it differs in
weights alone.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import onnx_ir as ir
from msgspec.structs import replace

from glesam_export.engines import network
from glesam_export.verify.reference_outputs import Step
from glesam_runtime.bundle import Bundle, file_ref
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import MANIFEST_FILE, STAGES, FileRef, Manifest, Stage, StageName
from glesam_runtime.manifest_file import dump
from glesam_runtime.staging import staged_folder


def refit_bundle(engines: Bundle, source: Bundle, destination: Path, step: Step) -> Manifest:
    """Write a bundle of the same engines with the weights of another ONNX bundle.

    Args:
        engines: compiled with --strip-weights.
        source: ONNX graphs of the same form.
        destination: a new folder, an empty one, or a bundle to replace.
        step: announces long work.

    Returns:
        The manifest as written: the engines' target, everything else the source's.

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
    _same_model(engines, source)
    with staged_folder(destination) as folder:
        stages = {}
        for stage in STAGES:
            with step(f"weights of the {stage}"):
                stages[stage] = _refit(engines, source, stage, folder)
        shutil.copyfile(source.golden_path, folder / source.golden_path.name)
        target = replace(engines.manifest.target, build=replace(build, source=source.sha256))
        manifest = replace(source.manifest, stages=stages, target=target)
        (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return manifest


def _same_model(engines: Bundle, source: Bundle) -> None:
    """What is compiled in must be alike: all of the model but gamma, which weights have in them."""
    old, new = engines.manifest.model, source.manifest.model
    for field in ("family", "preset", "unet", "timestep", "alpha_bar"):
        if getattr(old, field) != getattr(new, field):
            raise InputError(
                f"{source.path}: {field} {getattr(new, field)}, the engines have "
                f"{getattr(old, field)}; compile it instead"
            )


def _refit(engines: Bundle, source: Bundle, stage: StageName, folder: Path) -> Stage:
    """One stage: its engine, and the new graph where it has the form of the old one."""
    old, new = engines.manifest.stages[stage], source.manifest.stages[stage]
    weights = engines.weights_path(stage)
    assert weights is not None, "the manifest's reader has seen to it"
    with tempfile.TemporaryDirectory() as scratch:
        graph, _ = network.rewrite(source.graph_path(stage), Path(scratch), new.precision)
        if old.precision != new.precision or _form(graph) != _form(weights):
            raise InputError(
                f"{source.path}: its {stage} differs from the engine's in more than weights; "
                "compile it instead"
            )
        described, data = keep_weights(graph, folder)
    shutil.copyfile(engines.graph_path(stage), folder / old.graph.file)
    return replace(old, weights=described, data=data)


def keep_weights(graph: Path, folder: Path) -> tuple[FileRef, FileRef | None]:
    """Put a graph, and its data where it has a file of them, beside an engine without weights."""
    copies = []
    for path in (graph, graph.with_name(f"{graph.name}.data")):
        if path.exists():
            shutil.copyfile(path, folder / path.name)
            copies.append(file_ref(folder / path.name))
    return copies[0], copies[1] if len(copies) > 1 else None


def _form(path: Path) -> list[object]:
    """All of a graph but its weights' values: what an engine has compiled in."""
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
                sorted((name, _spelled(attribute)) for name, attribute in node.attributes.items())
            ),
        )
        for node in graph
    ]
    return [sorted(values.items()), nodes]


def _spelled(attribute: ir.Attr) -> str:
    """An attribute's value; of a tensor, the numbers."""
    value = attribute.value
    return str(value.numpy().tolist()) if isinstance(value, ir.TensorProtocol) else str(value)
