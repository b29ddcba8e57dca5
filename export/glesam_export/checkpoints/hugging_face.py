"""Reads SAMs as transformers saves them: SamModel, Sam2Model and Sam2VideoModel.

`save_pretrained` writes a folder with config.json and model.safetensors, or an index and several
files. What differs between the families lies in each family's `HuggingFace`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from glesam_export.checkpoints import state_dicts
from glesam_export.checkpoints.sharded_file import ShardedFile
from glesam_export.checkpoints.tensor_file import TensorFile, first_line
from glesam_export.families import FAMILIES, Family, Preset, family_of
from glesam_runtime.errors import CheckpointError
from glesam_runtime.input_paths import read_json_file

NOTE = "Hugging Face"
"""`TensorFile.note` of a file that had transformers' names."""

CONFIG_FILE = "config.json"

INDEX = ".index.json"
"""End of the name of a file that says which file holds which tensor."""

WEIGHT_FILES = (
    *("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"),
    *(f"model.safetensors{INDEX}", f"pytorch_model.bin{INDEX}"),
)
"""Names of the weights in a folder that transformers wrote; the first that is there is read."""


def weight_file(folder: Path) -> Path | None:
    """Return the weights in a folder that transformers wrote: a file, or the index of several."""
    return next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)


def open_weights(path: Path, option: str = "") -> TensorFile:
    """Open a file of tensors, the index of several, or a folder that transformers wrote.

    Raises:
        CheckpointError: a folder holds no file of a known name, or a file cannot be read.
    """
    if path.is_dir():
        found = weight_file(path)
        if found is None:
            where = f"{option} {path}".strip()
            names = ", ".join(WEIGHT_FILES)
            raise CheckpointError(f"{where}: a folder without a SAM's weights: none of {names}")
        path = found
    elif path.suffix == ".json" and not path.name.endswith(INDEX) and path.is_file():
        raise CheckpointError(
            f"{option} {path}".strip() + ": a JSON file without weights; pass the file of tensors "
            "beside it, or their folder"
        )
    return ShardedFile(path, option) if path.name.endswith(INDEX) else TensorFile(path, option)


def translate(file: TensorFile) -> None:
    """Give a SAM from transformers, or a named part of one, Meta's names and shapes, in place.

    Other files stay as they are.

    Raises:
        CheckpointError: the file holds tensors of no part of the SAM, or config.json is of another
            model.
    """
    for family in reversed(FAMILIES.values()):
        rules = family.hugging_face
        if rules is None or not rules.recognises(file.shapes):
            continue
        file.note = NOTE
        _config(file, family)
        if unknown := rules.unknown(file.shapes):
            raise CheckpointError(
                f"{file.where}: not {family.title} alone: {state_dicts.first_three(unknown)}"
            )
        file.convert(partial(rules.converted, where=file.where))
        return


def decoder_names(
    tensors: Mapping[str, Tensor], family: Family[Any], where: str
) -> dict[str, Tensor]:
    """Return a decoder with Meta's names, whether they were Meta's or transformers' before.

    Args:
        tensors: by names that may leave out the part that they belong to.
        family: the family of the decoder.
        where: its file, for messages.
    """
    rules = family.hugging_face
    if rules is None or not rules.of_transformers(tensors):
        return dict(tensors)
    return rules.converted(tensors, where)


def config_beside(file: TensorFile) -> Path | None:
    """Return the config.json of a SAM from transformers; None if there is none."""
    path = file.path.with_name(CONFIG_FILE)
    return path if file.note == NOTE and path.is_file() else None


def config_problems(file: TensorFile, preset: Preset) -> list[str]:
    """List the entries of a SAM's config.json that describe another model than a preset's.

    Raises:
        CheckpointError: config.json cannot be read, or is of another kind of model.
    """
    family = family_of(preset)
    config = _config(file, family)
    rules = family.hugging_face
    return [] if config is None or rules is None else rules.differences(config, preset)


def check_config(file: TensorFile, preset: Preset) -> None:
    """Refuse a SAM whose config.json describes another model than the preset.

    Raises:
        CheckpointError: names the entries, and the preset that fits if there is one.
    """
    if not (problems := config_problems(file, preset)):
        return
    presets = family_of(preset).presets.values()
    fitting = [each.name for each in presets if not config_problems(file, each)]
    remedy = f"use preset {fitting[0]}" if fitting else "no preset fits it"
    raise CheckpointError(
        f"{file.where}: its {CONFIG_FILE} is not of {preset.name} "
        f"({state_dicts.first_three(problems)}); {remedy}"
    )


def _config(file: TensorFile, family: Family[Any]) -> Mapping[str, Any] | None:
    """Read the config.json beside a SAM; None if there is none, or it names no model type.

    Raises:
        CheckpointError: the file cannot be read, or is of a model that is not this family's.
    """
    if (path := config_beside(file)) is None:
        return None
    try:
        config = json.loads(read_json_file(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: not readable JSON ({first_line(error)}); fetch it again"
        ) from error
    rules = family.hugging_face
    assert rules is not None, "it recognised the file"
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind is None:
        return None
    if kind not in rules.model_types:
        known = [t for f in FAMILIES.values() if f.hugging_face for t in f.hugging_face.model_types]
        raise CheckpointError(
            f"{path}: model_type is {kind!r}, but the tensors beside it are of {family.title}; "
            f"supported are {', '.join(known)}"
        )
    return dict(config)
