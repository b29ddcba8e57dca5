"""From an ONNX bundle to a bundle of engines: compiled, looked into, and only then put in place."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from glesam_export.engines import network
from glesam_export.engines.compile import compile_network, ranges
from glesam_export.engines.inspect import inspected_precisions
from glesam_export.engines.plan import Plan, check, gpu_at_hand
from glesam_export.engines.refit import keep_weights
from glesam_export.verify.reference_outputs import Step
from glesam_runtime.backends.tensorrt_api import Api, import_family, system_name
from glesam_runtime.backends.tensorrt_fit import Gpu
from glesam_runtime.bundle import Bundle, file_ref, require_own_weights, sha256_of
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
class Compiled:
    """A stage's engine as the manifest describes it, and in what its graph was changed."""

    stage: Stage
    changes: tuple[str, ...]


def compile_bundle(source: Bundle, destination: Path, plan: Plan, step: Step) -> Manifest:
    """Compile a bundle's graphs; `destination` appears whole or not at all.

    The parity figures stay those of the ONNX bundle, whose graphs the engines compute: without a
    GPU there are no others. `glesam-run --selftest` on the device proves the engines themselves.

    Args:
        source: a bundle of ONNX graphs.
        destination: a new folder, an empty one, or a bundle to replace.
        plan: how.
        step: announces long work.

    Returns:
        The manifest as written.

    Raises:
        BundleError: the source's weights are hard links.
        InputError: the source holds engines already, the plan asks for what the library has not,
            or the destination cannot be written.
        BackendError: the library or a GPU is missing, or compiling failed.
    """
    if source.manifest.target.engine != "onnx":
        raise InputError(f"{source.path}: holds engines already; pass the ONNX bundle it came from")
    if Path(destination).resolve() == source.path.resolve():
        raise InputError(f"{destination}: is the ONNX bundle itself; choose another folder")
    require_own_weights(source)
    api = import_family(plan.family)
    check(plan, api)
    gpu = gpu_at_hand(plan, api)
    with staged_folder(destination) as folder:
        compiled = {
            stage: _compile(api, source, stage, plan, gpu, folder, step) for stage in STAGES
        }
        shutil.copyfile(source.golden_path, folder / source.golden_path.name)
        manifest = replace(
            source.manifest,
            stages={stage: each.stage for stage, each in compiled.items()},
            target=replace(
                source.manifest.target,
                engine=plan.family,
                build=_build(api, source, plan, gpu, compiled),
            ),
        )
        (folder / MANIFEST_FILE).write_bytes(dump(manifest))
    return manifest


def _compile(
    api: Api,
    source: Bundle,
    stage: StageName,
    plan: Plan,
    gpu: Gpu | None,
    folder: Path,
    step: Step,
) -> Compiled:
    """Parse, check, compile and describe one stage."""
    spec = source.manifest.stages[stage]
    path = folder / f"{stage}.engine"
    with tempfile.TemporaryDirectory() as scratch:
        with step(f"parse {stage}"):
            graph, changes = network.rewrite(
                source.graph_path(stage), Path(scratch), spec.precision
            )
            parsed = network.parse(api, graph)
            found = network.precisions(parsed.definition)
            network.require_precision(found, spec.precision, stage)
        with step(f"compile {stage} ({spec.precision}, {plan.family})"):
            compile_network(api, parsed, spec.inputs, plan, path, stage)
        weights, data = keep_weights(graph, folder) if plan.strip else (None, None)
    if gpu is not None:
        with step(f"inspect {stage}"):
            network.require_precision(inspected_precisions(api, path), spec.precision, stage)
    described = replace(
        spec,
        graph=file_ref(path),
        weights=weights,
        data=data,
        profile=ranges(spec.inputs, plan.profile) or None,
    )
    return Compiled(described, changes)


def _build(
    api: Api, source: Bundle, plan: Plan, gpu: Gpu | None, compiled: dict[StageName, Compiled]
) -> EngineBuild:
    """How the engines were built, for the manifest."""
    kept = plan.timing_cache is not None and plan.timing_cache.exists()
    changes = {change: None for each in compiled.values() for change in each.changes}
    return EngineBuild(
        version=api.version,
        system=system_name(),
        compute_capabilities=(gpu.capability,) if gpu is not None else plan.capabilities,
        source=source.sha256,
        precision_seen_in="network" if gpu is None else "engine",
        gpu=gpu.name if gpu is not None else None,
        hardware_compatibility=plan.hardware_compatibility,
        version_compatible=plan.version_compatible,
        refittable=plan.strip,
        stripped=plan.strip,
        optimization_level=plan.optimization_level,
        timing_cache=sha256_of(plan.timing_cache) if kept and plan.timing_cache else None,
        changes=tuple(changes),
    )
