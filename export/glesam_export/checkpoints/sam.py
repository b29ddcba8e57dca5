"""Checks and describes a file of SAM's weights, of any family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from glesam_export.checkpoints import Contents, Finding, Format, hugging_face, state_dicts
from glesam_export.checkpoints.tensor_file import TensorFile
from glesam_export.families import FAMILIES, Family, Preset, family_of
from glesam_runtime.errors import CheckpointError

PART = re.compile(
    rf"(?:^|\.)(?P<part>(?:{'|'.join({p for f in FAMILIES.values() for p in f.parts})})\.)"
)
"""The name of a SAM's part inside the name of a tensor."""

MARKS = re.compile(r"(^|\.)(?:(?:_orig_mod|module)\.)+")
"""Parts that torch.compile and parallel training add to names."""


def check(state: Mapping[str, Tensor], preset: Preset, where: str) -> None:
    """Refuse a state dict that is not this preset's.

    Args:
        state: the tensors.
        preset: the SAM that they must be.
        where: the file, for messages.

    Raises:
        CheckpointError: names the preset that fits, or the first three problems.
    """
    family = family_of(preset)
    if problems := family.misfits(state, preset):
        # Ask only the family with these keys, because packages of others may not be installed.
        own = family_by_keys(state) or family
        fitting = [name for name, p in own.presets.items() if not own.misfits(state, p)]
        if fitting:
            raise CheckpointError(
                f"{where}: not a {preset.name} but a {fitting[0]}; use preset {fitting[0]}"
            )
        raise CheckpointError(
            f"{where}: does not fit {preset.name} or any other preset: "
            f"{state_dicts.first_three(problems)}"
        )
    if broken := state_dicts.unusable(dict(family.used(state))):
        raise CheckpointError(f"{where}: {state_dicts.first_three(broken)}")


def overlaid(
    state: Mapping[str, Tensor], decoder: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    """Return a whole SAM with tensors of its decoder and prompt encoder replaced.

    Args:
        state: the whole SAM.
        decoder: the new tensors. Their names may leave out the part that they belong to.
        where: the file of `decoder`, for messages.

    Raises:
        CheckpointError: a tensor is the encoder's, is unknown, or has another shape.
    """
    family = family_by_keys(state)
    if family is None:
        return dict(state)  # `check` says what is wrong with it
    encoder, *parts = family.parts
    decoder = hugging_face.decoder_names(decoder, family, where)
    if any(name.startswith(f"{encoder}.") for name in decoder):
        raise CheckpointError(f"{where}: holds an image encoder; pass a whole SAM by --sam alone")
    if (other := family_by_keys(decoder)) not in (None, family):
        assert other is not None
        raise CheckpointError(
            f"{where}: its tensors have the names of a {other.title}, but --sam is a "
            f"{family.title}; pass a decoder of that {family.title}"
        )
    merged, problems = dict(state), []
    for name, tensor in decoder.items():
        places = [n for n in (name, *(f"{part}.{name}" for part in parts)) if n in state]
        if not places:
            problems.append(f"{name} is unknown")
        elif state[places[0]].shape != tensor.shape:
            shape, wanted = list(tensor.shape), list(state[places[0]].shape)
            problems.append(f"{name} is {shape}, not {wanted}")
        else:
            merged[places[0]] = tensor
    if problems:
        raise CheckpointError(
            f"{where}: does not fit the SAM's decoder: {state_dicts.first_three(problems)}"
        )
    return merged


def open_file(path: Path, option: str = "") -> TensorFile:
    """Open a file of tensors. A SAM in it gets the names of Meta's files.

    Args:
        path: a file of any kind, or a folder that transformers wrote.
        option: the option that names it, for messages.

    Raises:
        CheckpointError: the file cannot be read, or is a SAM of transformers with other tensors.
    """
    file = hugging_face.open_weights(path, option)
    drop_prefixes(file)
    hugging_face.translate(file)
    return file


def drop_prefixes(file: TensorFile) -> None:
    """Drop what training code adds to the names of a SAM's tensors, in place.

    These are the marks of torch.compile and of parallel training anywhere in a name, and one prefix
    that all names share, such as `sam.` or `model.`. Files of something else stay as they are.
    """
    plain = [MARKS.sub(r"\1", name) for name in file.shapes]
    prefixes = {
        name[: match.start("part")] for name in plain if (match := PART.search(name)) is not None
    }
    if len(prefixes) != 1:
        return
    (prefix,) = prefixes
    if all(name.startswith(prefix) for name in plain) and [*file.shapes] != [
        name.removeprefix(prefix) for name in plain
    ]:
        file.rename(lambda name: MARKS.sub(r"\1", name).removeprefix(prefix))


def family_by_keys(names: Iterable[str]) -> Family[Any] | None:
    """Return the family whose files have tensors of these names; None if no family has."""
    listed = list(names)
    for family in reversed(FAMILIES.values()):
        if family.recognises(listed):
            return family
    return None


def _matches(contents: Contents) -> bool:
    """Return whether a file holds SAM's weights, or a part of them."""
    return contents.tensors is not None and family_by_keys(contents.tensors.shapes) is not None


def _describe(contents: Contents) -> Finding:
    """Describe a SAM, whole or in part."""
    assert contents.tensors is not None, "it matched"
    path, state = contents.path, contents.tensors.shapes
    family = family_by_keys(state)
    assert family is not None, "it matched"
    lacks = tuple(
        part for part in family.parts if not any(name.startswith(f"{part}.") for name in state)
    )
    if lacks:
        words = f"part of a {family.title}, without {' and '.join(lacks)}"
        return Finding(path, "sam", words, (), lacks)
    wrong = {name: family.misfits(state, preset) for name, preset in family.presets.items()}
    fits = tuple(name for name, misfits in wrong.items() if not misfits)
    if contents.tensors.note and (refused := _refused_by_config(contents.tensors, family, fits)):
        return Finding(path, "sam", refused)
    if fits:
        saved = f" from {contents.tensors.note}" if contents.tensors.note else ""
        return Finding(path, "sam", f"{family.title}{saved}, whole: {' or '.join(fits)}", fits)
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    problems = state_dicts.first_three(wrong[nearest])
    words = f"{family.title} of no preset; next is {nearest} ({problems})"
    return Finding(path, "sam", words)


def _refused_by_config(file: TensorFile, family: Family[Any], fits: Iterable[str]) -> str | None:
    """Say why a SAM's config.json fits none of the presets that its tensors fit; None if one."""
    candidates = [family.presets[name] for name in fits] or [*family.presets.values()]
    problems = {preset.name: hugging_face.config_problems(file, preset) for preset in candidates}
    nearest = min(problems, key=lambda name: len(problems[name]))
    if not problems[nearest]:
        return None
    words = f"{hugging_face.CONFIG_FILE}: {state_dicts.first_three(problems[nearest])}"
    return f"{family.title} from {file.note} of no preset; next is {nearest} ({words})"


FORMAT = Format(_matches, _describe)
