"""Turns an ONNX bundle into a bundle of engines."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from glesam_export.attention.for_tensorrt import write_fusible
from glesam_export.engines.build_options import EngineBuildOptions, find_gpu, require_support
from glesam_export.engines.compile import compile_network, parse, ranges
from glesam_export.engines.precision_check import (
    engine_precisions,
    network_precisions,
    require_precision,
)
from glesam_export.engines.refit import keep_weights
from glesam_export.verify.reference_outputs import Step
from glesam_runtime.backends.cuda import Gpu
from glesam_runtime.backends.tensorrt_api import Api, import_family, system_name
from glesam_runtime.bundle import Bundle, file_ref, require_own_weights, sha256_of
from glesam_runtime.enhancing import with_own_gate
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import (
    MANIFEST_FILE,
    STAGES,
    Manifest,
    Stage,
    StageName,
)
from glesam_runtime.manifest_file import dump
from glesam_runtime.staging import staged_folder
from glesam_runtime.target import EngineBuild


@dataclass(frozen=True)
class CompiledStage:
    """Describes one compiled stage.

    Attributes:
        stage: the manifest's entry for its engine.
        changes: how its graph was rewritten before the build.
    """

    stage: Stage
    changes: tuple[str, ...]


def compile_bundle(
    source: Bundle, destination: Path, options: EngineBuildOptions, step: Step
) -> Manifest:
    """Compile a bundle's graphs into engines and write them as a new bundle.

    `destination` appears complete or not at all. The new bundle keeps the parity figures of the
    ONNX bundle, because this machine may have no GPU to measure the engines on;
    `glesam-run --selftest` verifies the engines on their GPU.

    Args:
        source: a bundle of ONNX graphs.
        destination: a new folder, an empty folder, or a bundle to replace.
        options: control the build.
        step: reports progress.

    Returns:
        The manifest of the new bundle.

    Raises:
        BundleError: the source's weight files are hard links.
        InputError: the source holds engines, the library does not support an option, or the
            destination cannot be written.
        BackendError: the library or a GPU is missing, or the build failed.
    """
    if source.manifest.target.engine != "onnx":
        raise InputError(f"{source.path}: holds engines already; pass the ONNX bundle it came from")
    if Path(destination).resolve() == source.path.resolve():
        raise InputError(f"{destination}: is the ONNX bundle itself; choose another folder")
    require_own_weights(source)
    api = import_family(options.family)
    require_support(options, api)
    gpu = find_gpu(options, api)
    with staged_folder(destination) as folder:
        compiled = {
            stage: _compile(api, source, stage, options, gpu, folder, step) for stage in STAGES
        }
        shutil.copyfile(source.golden_path, folder / source.golden_path.name)
        manifest = replace(
            source.manifest,
            stages={stage: each.stage for stage, each in compiled.items()},
            target=replace(
                source.manifest.target,
                engine=options.family,
                build=_describe_build(api, source, options, gpu, compiled),
            ),
        )
        manifest = with_own_gate(manifest)
        (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return manifest


def _compile(
    api: Api,
    source: Bundle,
    stage: StageName,
    options: EngineBuildOptions,
    gpu: Gpu | None,
    folder: Path,
    step: Step,
) -> CompiledStage:
    """Parse, check and compile one stage, and describe the result."""
    spec = source.manifest.stages[stage]
    path = folder / f"{stage}.engine"
    with tempfile.TemporaryDirectory() as scratch:
        with step(f"parse {stage}"):
            graph, changes = write_fusible(source.graph_path(stage), Path(scratch), spec.precision)
            network = parse(api, graph)
            require_precision(network_precisions(network.definition), spec.precision, stage)
        with step(f"compile {stage} ({spec.precision}, {options.family})"):
            compile_network(api, network, spec.inputs, options, path, stage)
        weights, data = keep_weights(graph, folder) if options.strip_weights else (None, None)
    if gpu is not None:
        with step(f"inspect {stage}"):
            require_precision(engine_precisions(api, path), spec.precision, stage)
    described = replace(
        spec,
        graph=file_ref(path),
        weights=weights,
        data=data,
        profile=ranges(spec.inputs, options.axis_ranges) or None,
    )
    return CompiledStage(described, changes)


def _describe_build(
    api: Api,
    source: Bundle,
    options: EngineBuildOptions,
    gpu: Gpu | None,
    compiled: dict[StageName, CompiledStage],
) -> EngineBuild:
    """Return the manifest's record of the build."""
    cache = options.saved_timing_cache
    changes = {change: None for each in compiled.values() for change in each.changes}
    return EngineBuild(
        version=api.version,
        system=system_name(),
        compute_capabilities=(gpu.capability,) if gpu is not None else options.capabilities,
        source=source.sha256,
        precision_seen_in="network" if gpu is None else "engine",
        gpu=gpu.name if gpu is not None else None,
        hardware_compatibility=options.hardware_compatibility,
        version_compatible=options.version_compatible,
        refittable=options.strip_weights,
        stripped=options.strip_weights,
        optimization_level=options.builder_optimization_level,
        timing_cache=sha256_of(cache) if cache is not None else None,
        changes=tuple(changes),
    )
