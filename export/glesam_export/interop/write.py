"""Turns a verified bundle into a folder for a tool: checks, builds, measures and writes it."""

from __future__ import annotations

import dataclasses
import json
from importlib import metadata
from pathlib import Path

import msgspec
from msgspec import UNSET

from glesam_calibration.graph_files import save_graph
from glesam_export.interop import check
from glesam_export.interop.config_files import write_config
from glesam_export.interop.decoder_graph import build_decoder
from glesam_export.interop.encoder_graph import build_encoder
from glesam_export.interop.tools import MEAN, STD, TOOLS, Interface, Masks, ToolName
from glesam_export.verify.reference_outputs import Step
from glesam_runtime.bundle import Bundle, require_own_weights
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.manifest import IMAGE_INDEX, RELEASED_INPUT, STAGES, TIMESTEP_LEVELS
from glesam_runtime.staging import staged_folder

RECORD = "interop.json"
_WITHOUT = {
    RELEASED_INPUT: "with --input sam",
    IMAGE_INDEX: "without --image-index",
    TIMESTEP_LEVELS: "with one --timestep",
}
"""How to export a bundle that does not require a feature. The tools know none."""


@dataclasses.dataclass(frozen=True)
class Written:
    """What `write_for_tool` wrote."""

    agreement: check.Agreement
    start: str
    """How to start the tool, from the folder."""


def write_for_tool(
    bundle: Bundle,
    destination: Path,
    tool: ToolName,
    step: Step,
    *,
    masks: Masks | None = None,
    points: int | None = None,
) -> Written:
    """Write a bundle's graphs in the interface of a tool. The folder appears whole or not at all.

    Args:
        bundle: an ONNX bundle of a family that the tool supports.
        destination: a new or empty folder.
        tool: the program that will run the graphs.
        step: reports long steps.
        masks: "one" or "four" masks per prompt; None is the tool's usual number.
        points: a fixed number of points per prompt; None leaves it open.

    Raises:
        InputError: the destination is not free, or the tool does not support an option.
        BundleError: the tool cannot run such a bundle.
        ParityError: the graphs differ from the bundle. Nothing was written.
    """
    interface, kept = _interface(bundle, tool, masks, points)
    with staged_folder(destination, replaces_bundle=False) as folder:
        for form in (interface.encoder, interface.decoder):
            (folder / form.file).parent.mkdir(parents=True, exist_ok=True)
        with step("join encoder and enhancer"):
            save_graph(build_encoder(bundle, interface.encoder), folder / interface.encoder.file)
        with step("decoder with the tool's interface"):
            decoder = build_decoder(bundle, interface, kept, points)
            save_graph(decoder, folder / interface.decoder.file)
        agreement = check.measure(bundle, folder, interface, kept, points, step)
        check.require(agreement, f"{destination} for {tool}")
        start = write_config(bundle, folder, tool, interface)
        _write_record(bundle, folder / RECORD, tool, kept, agreement)
    return Written(agreement, start)


def _interface(
    bundle: Bundle, tool: ToolName, masks: Masks | None, points: int | None
) -> tuple[Interface, Masks]:
    """Return the tool's interface and number of masks. Refuse what the tool cannot run.

    Raises:
        BundleError: naming what does not fit.
        InputError: an option does not apply to the tool.
    """
    manifest, row = bundle.manifest, TOOLS[tool]
    family, rules = manifest.model.family, manifest.preprocessing
    what = f"{bundle.path}: {row.title} cannot run this bundle"
    if family not in row.families:
        known = " and ".join(row.families)
        raise BundleError(f"{what}: its family is {family}, the tool supports {known}")
    if manifest.target.engine != "onnx":
        raise BundleError(f"{what}: it contains engines; give the ONNX bundle they were made from")
    if manifest.requires is not UNSET and manifest.requires:
        remedies = " and ".join(_WITHOUT[feature] for feature in manifest.requires)
        raise BundleError(f"{what}: it requires {', '.join(manifest.requires)}; export {remedies}")
    if manifest.target.batch not in (1, "dynamic"):
        raise BundleError(f"{what}: its batch is {manifest.target.batch}; export with --batch 1")
    if any(manifest.stages[stage].precision == "bf16" for stage in STAGES):
        raise BundleError(
            f"{what}: ONNX Runtime has no bf16 on CPUs; export with --precision fp32 or fp16"
        )
    interface = row.families[family]
    if interface.encoder.layout == "NCHW" and _differs(rules.mean, rules.std):
        raise BundleError(f"{what}: the tool normalises images itself, with another mean or std")
    if points is not None and not row.fixed_points:
        raise InputError(f"--points does not apply to {tool}, which passes any number of points")
    if masks is not None and interface.decoder.masks == "three":
        raise InputError(f"--masks does not apply to {tool} with SAM 2, which chooses among three")
    require_own_weights(bundle)
    return interface, masks or interface.decoder.masks


def _differs(mean: tuple[float, ...], std: tuple[float, ...]) -> bool:
    """Return whether the normalisation is not the tools', beyond rounding."""
    return any(abs(a - b) > 1e-3 for a, b in zip((*mean, *std), (*MEAN, *STD), strict=True))


def _write_record(
    bundle: Bundle, path: Path, tool: ToolName, masks: Masks, agreement: check.Agreement
) -> None:
    """Record which bundle the files are from, and the measured figures."""
    figures = {key: value for key, value in dataclasses.asdict(agreement).items() if key != "gate"}
    record = {
        "format": "glesam-interop",
        "tool": tool,
        "bundle": bundle.sha256,
        "preset": bundle.manifest.model.preset,
        "masks": masks,
        "gate": msgspec.to_builtins(agreement.gate),
        "measured": figures,
        "glesam-deploy": metadata.version("glesam-deploy"),
    }
    path.write_text(json.dumps(record, indent=2) + "\n")
