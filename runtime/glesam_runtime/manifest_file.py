"""Read, check and write manifest.json."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from glesam_runtime import manifest as contract
from glesam_runtime.checked_text import NO_FINAL_BREAK
from glesam_runtime.errors import BundleError
from glesam_runtime.interface import FAMILY_INTERFACES, expected_interface
from glesam_runtime.manifest import (
    FORMAT,
    MANIFEST_FILE,
    PIXEL_OFFSET,
    PROMPT_LABELS,
    STAGES,
    VERSION,
    FileRef,
    Manifest,
    Stage,
    TensorSpec,
)

_MOST_PIXELS = 1 << 26
"""Pixels of all images of the encoder's input, which has 12 bytes per pixel. SAM's have 1024^2."""


class _Header(msgspec.Struct):
    """The fields that are read first, so that a newer version is reported as newer."""

    format: str = ""
    version: int = 0


class _Requires(msgspec.Struct):
    """The field that is read second, so that an unknown feature is reported by its name.

    A feature may change the type of other fields, and the error should not be about those.
    """

    requires: tuple[str, ...] = ()


def parse(raw: bytes, where: str) -> Manifest:
    """Read and check a manifest.

    Args:
        raw: the bytes of manifest.json.
        where: its path, for error messages.

    Raises:
        BundleError: it is not JSON, is not a glesam bundle, has another version, requires an
            unknown feature, or has a missing or wrong field.
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
            "upgrade glesam-runtime" if header.version > VERSION else "export the checkpoint again"
        )
        raise BundleError(
            f"{where}: manifest version {header.version}, this program reads {VERSION}; {remedy}"
        )
    try:
        _check_requires(msgspec.json.decode(raw, type=_Requires).requires, where)
        manifest = msgspec.json.decode(raw, type=Manifest)
    except (msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: {error}; export the bundle again") from error
    _check_consistency(manifest, where)
    return manifest


def dump(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json: indented, in field order, with a final newline."""
    if not manifest.requires:
        manifest = msgspec.structs.replace(manifest, requires=msgspec.UNSET)
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of manifest.json."""
    python = msgspec.json.encode(msgspec.json.schema(Manifest))
    schema = msgspec.json.decode(python.replace(msgspec.json.encode(NO_FINAL_BREAK)[1:-1], b""))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _check_requires(names: tuple[str, ...], where: str) -> None:
    """Refuse a bundle that requires a feature which this reader does not know."""
    unknown = [name for name in names if name not in contract.KNOWN_FEATURES]
    if unknown:
        raise BundleError(
            f"{where}: requires {', '.join(map(repr, unknown))}, which this program does not "
            "support; upgrade glesam-runtime"
        )


def _check_consistency(manifest: Manifest, where: str) -> None:
    """Refuse mistakes that the types cannot express, such as a missing stage or a wrong shape."""
    family, rules = manifest.model.family, manifest.preprocessing
    size, step = rules.image_size, FAMILY_INTERFACES[family].size_step
    if size % step:
        raise _refusal(where, f"image_size {size} is not a multiple of {step}")
    batch = manifest.target.batch
    images = batch if isinstance(batch, int) else 1
    if images * size * size > _MOST_PIXELS:
        raise _refusal(
            where, f"{images} x {size} x {size} pixels of input, more than {_MOST_PIXELS} pixels"
        )
    if (rules.resize == "square") != (rules.pad == "none"):
        raise _refusal(where, f"resize {rules.resize!r} contradicts pad {rules.pad!r}")
    _check_first_resize(manifest, where)
    _check_levels(manifest, where)
    masks = manifest.postprocessing
    if (masks.single_mask == "first_if_stable") != (masks.stability is not None):
        need = "has no" if masks.single_mask == "first" else "needs a"
        raise _refusal(where, f"single_mask {masks.single_mask!r} {need} 'stability'")
    if manifest.coordinates.pixel_offset != PIXEL_OFFSET:
        raise _refusal(where, f"pixel_offset must be {PIXEL_OFFSET}")
    if manifest.coordinates.labels != PROMPT_LABELS:
        wanted = ", ".join(f"{name} {value}" for name, value in PROMPT_LABELS.items())
        raise _refusal(where, f"labels must be {wanted}")
    indexed, leveled = (
        feature in (manifest.requires or ())
        for feature in (contract.IMAGE_INDEX, contract.TIMESTEP_LEVELS)
    )
    for name in STAGES:
        if name not in manifest.stages:
            raise _refusal(where, f"stage {name!r} is missing")
        stage = manifest.stages[name]
        inputs, outputs = expected_interface(name, size, batch, family, indexed, leveled)
        for found, expected in ((stage.inputs, inputs), (stage.outputs, outputs)):
            if found != expected:
                raise _refusal(
                    where, f"{name} declares {_spell(found)}, the contract says {_spell(expected)}"
                )
    _check_target(manifest, where)
    files = [ref.file for ref in file_refs(manifest)]
    for file in files:
        if files.count(file) > 1 or file == MANIFEST_FILE:
            raise _refusal(where, f"file {file!r} is named twice")


def _check_first_resize(manifest: Manifest, where: str) -> None:
    """Refuse a first resize that contradicts `requires` or the other rules of preprocessing."""
    rules = manifest.preprocessing
    first = rules.first_resize
    named = contract.RELEASED_INPUT in (manifest.requires or ())
    if isinstance(first, msgspec.UnsetType):
        if named:
            raise _refusal(where, f"{contract.RELEASED_INPUT!r} needs a 'first_resize'")
        return
    if not named:
        raise _refusal(where, f"'first_resize' needs {contract.RELEASED_INPUT!r} in 'requires'")
    if rules.resize != "square":
        raise _refusal(where, f"resize {rules.resize!r} contradicts 'first_resize'")
    if first.size > rules.image_size:
        raise _refusal(
            where, f"first_resize {first.size} is larger than image_size {rules.image_size}"
        )


def _check_levels(manifest: Manifest, where: str) -> None:
    """Refuse timestep levels that contradict `requires` or the model's own timestep."""
    model, name = manifest.model, contract.TIMESTEP_LEVELS
    levels = model.timestep_levels
    named = name in (manifest.requires or ())
    if isinstance(levels, msgspec.UnsetType):
        if named:
            raise _refusal(where, f"{name!r} needs 'timestep_levels' in 'model'")
        return
    if not named:
        raise _refusal(where, f"'timestep_levels' needs {name!r} in 'requires'")
    steps = [level.timestep for level in levels]
    if not 2 <= len(steps) <= contract.MOST_LEVELS or steps != sorted(set(steps)):
        raise _refusal(
            where,
            f"timestep_levels are not 2 to {contract.MOST_LEVELS} timesteps in ascending order",
        )
    if (model.timestep, model.alpha_bar) not in [(e.timestep, e.alpha_bar) for e in levels]:
        raise _refusal(
            where, f"timestep {model.timestep} with its alpha_bar is none of timestep_levels"
        )


def _check_target(manifest: Manifest, where: str) -> None:
    """Refuse a manifest whose files and engine records do not match `target.engine`."""
    target = manifest.target
    compiled = target.engine != "onnx"
    if compiled != (target.build is not None):
        need = "needs a" if compiled else "has no"
        raise _refusal(where, f"engine {target.engine!r} {need} 'build'")
    stripped = target.build is not None and target.build.stripped
    for name in STAGES:
        stage = manifest.stages[name]
        if compiled != stage.graph.file.endswith(".engine"):
            raise _refusal(where, f"{stage.graph.file!r} is not a graph for {target.engine!r}")
        if stripped != (stage.weights is not None):
            need = "a stripped engine needs" if stripped else "only a stripped engine has"
            raise _refusal(where, f"{name}: {need} 'weights'")
        ranges = stage.profile or {}
        dynamic = {axis for spec in stage.inputs for axis in spec.shape if isinstance(axis, str)}
        expected = dynamic if compiled else set()
        if set(ranges) != expected:
            raise _refusal(
                where, f"{name}: the axes of 'profile' are {sorted(ranges)}, not {sorted(expected)}"
            )
        for axis, sizes in ranges.items():
            if not sizes.min <= sizes.opt <= sizes.max:
                raise _refusal(where, f"{name}: profile {axis} {sizes} is not in ascending order")


def _refusal(where: str, what: str) -> BundleError:
    """Return the error for a manifest that contradicts the contract."""
    return BundleError(f"{where}: {what}; export the bundle again")


def file_refs(manifest: Manifest) -> tuple[FileRef, ...]:
    """Return every file of the bundle except the manifest itself."""
    stages = manifest.stages.values()
    further = (ref for stage in stages for ref in (stage.weights, stage.data) if ref is not None)
    return (*(stage.graph for stage in stages), *further, manifest.golden)


def stage_sha256(stage: Stage) -> str:
    """Return a hash of a stage's graph and external weights.

    Two graphs can be equal and differ only in their external weights.
    """
    hashes = [file.sha256 for file in (stage.graph, stage.data) if file is not None]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def _spell(specs: tuple[TensorSpec, ...]) -> str:
    """Return name[shape] of each tensor, for messages."""
    return ", ".join(f"{s.name}[{','.join(map(str, s.shape))}]" for s in specs)
