"""Reads, checks and writes manifest.json."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from glesam_runtime.errors import BundleError
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import (
    FORMAT,
    MANIFEST_FILE,
    STAGES,
    VERSION,
    FileRef,
    Manifest,
    TensorSpec,
)


class _Header(msgspec.Struct):
    """What is read first, so that a newer manifest is called newer and not malformed."""

    format: str = ""
    version: int = 0


def parse(raw: bytes, where: str) -> Manifest:
    """Read and check a manifest; `where` names it in errors.

    Raises:
        BundleError: not JSON, not a glesam bundle, another version, or a field amiss.
    """
    try:
        header = msgspec.json.decode(raw, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(
            f"{where}: not a bundle manifest ({error}); export the bundle again"
        ) from error
    if header.format != FORMAT:
        raise BundleError(f'{where}: "format" is {header.format!r}, not {FORMAT!r}: not a bundle')
    if header.version != VERSION:
        remedy = (
            "upgrade glesam-deploy" if header.version > VERSION else "export the checkpoint again"
        )
        raise BundleError(
            f"{where}: manifest version {header.version}, this program reads {VERSION}; {remedy}"
        )
    try:
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BundleError(f"{where}: {error}; export the bundle again") from error
    _check_consistency(manifest, where)
    return manifest


def dump(manifest: Manifest) -> bytes:
    """manifest.json's bytes: indented, in field order, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of manifest.json."""
    schema = msgspec.json.schema(Manifest)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _check_consistency(manifest: Manifest, where: str) -> None:
    """Refuse what the types cannot: a missing stage, or shapes that are not the contract's."""
    family, rules = manifest.model.family, manifest.preprocessing
    size, step = rules.image_size, 16 if family == "sam" else 32
    if size % step:
        raise BundleError(f"{where}: image_size {size} is not a multiple of {step}")
    if (rules.resize == "square") != (rules.pad == "none"):
        raise BundleError(f"{where}: resize {rules.resize!r} contradicts pad {rules.pad!r}")
    masks = manifest.postprocessing
    if (masks.single_mask == "first_if_stable") != (masks.stability is not None):
        raise BundleError(f"{where}: single_mask {masks.single_mask!r} contradicts stability")
    for name in STAGES:
        if name not in manifest.stages:
            raise BundleError(f"{where}: stage {name!r} is missing; export the bundle again")
        stage = manifest.stages[name]
        inputs, outputs = expected_interface(name, size, manifest.target.batch, family)
        for found, wanted in ((stage.inputs, inputs), (stage.outputs, outputs)):
            if found != wanted:
                raise BundleError(
                    f"{where}: {name} declares {_spell(found)}, the contract says {_spell(wanted)}"
                )
    _check_target(manifest, where)
    files = [ref.file for ref in file_refs(manifest)]
    for file in files:
        if not is_plain_name(file):  # a pattern's "$" lets a last line break pass
            raise BundleError(f"{where}: {file!r} is not a plain file name")
        if files.count(file) > 1 or file == MANIFEST_FILE:
            raise BundleError(f"{where}: file {file!r} is named twice")


def _check_target(manifest: Manifest, where: str) -> None:
    """Refuse engines that do not say how they were built, and graphs that say they are engines."""
    target = manifest.target
    compiled = target.engine != "onnx"
    if compiled != (target.build is not None):
        raise BundleError(f"{where}: engine {target.engine!r} contradicts its 'build'")
    stripped = target.build is not None and target.build.stripped
    for name in STAGES:
        stage = manifest.stages[name]
        if compiled != stage.graph.file.endswith(".engine"):
            raise BundleError(f"{where}: {stage.graph.file!r} is not a graph for {target.engine!r}")
        if stripped != (stage.weights is not None):
            raise BundleError(f"{where}: {name}: 'weights' contradicts 'stripped'")
        ranges = stage.profile or {}
        free = {axis for spec in stage.inputs for axis in spec.shape if isinstance(axis, str)}
        if set(ranges) != (free if compiled else set()):
            raise BundleError(f"{where}: {name}: profile of {sorted(ranges)}, not {sorted(free)}")
        for axis, sizes in ranges.items():
            if not sizes.min <= sizes.opt <= sizes.max:
                raise BundleError(f"{where}: {name}: profile {axis} {sizes} is not in order")


def file_refs(manifest: Manifest) -> tuple[FileRef, ...]:
    """Every file of the bundle but the manifest itself."""
    stages = manifest.stages.values()
    further = (ref for stage in stages for ref in (stage.weights, stage.data) if ref is not None)
    return (*(stage.graph for stage in stages), *further, manifest.golden)


def _spell(specs: tuple[TensorSpec, ...]) -> str:
    """Name[shape] of each tensor, for messages."""
    return ", ".join(f"{s.name}[{','.join(map(str, s.shape))}]" for s in specs)


def is_plain_name(name: str) -> bool:
    """Whether `name` is a file name that cannot leave its folder."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None
