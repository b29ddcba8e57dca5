"""Defines what tells a SAM from transformers apart from Meta's: names, tensors, settings.

This module does not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from glesam_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_HEADS = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+)\."

DECODER_NAMES: tuple[tuple[str, str], ...] = (
    # A head has three layers, of which only the middle one is in a list.
    (_HEADS + r"layers\.0\.", r"\1.layers.1."),
    (_HEADS + r"proj_in\.", r"\1.layers.0."),
    (_HEADS + r"proj_out\.", r"\1.layers.2."),
    (r"\bupscale_conv1\.", "output_upscaling.0."),
    (r"\bupscale_layer_norm\.", "output_upscaling.1."),
    (r"\bupscale_conv2\.", "output_upscaling.3."),
    (r"\bmask_embed\.conv1\.", "mask_downscaling.0."),
    (r"\bmask_embed\.layer_norm1\.", "mask_downscaling.1."),
    (r"\bmask_embed\.conv2\.", "mask_downscaling.3."),
    (r"\bmask_embed\.layer_norm2\.", "mask_downscaling.4."),
    (r"\bmask_embed\.conv3\.", "mask_downscaling.6."),
    (r"\bpoint_embed\.", "point_embeddings."),
    (r"\bshared_embedding\.positional_embedding$", "pe_layer.positional_encoding_gaussian_matrix"),
    (
        r"^shared_image_embedding\.positional_embedding$",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    ),
    (r"\blayer_norm(?=\d|_final_attn|\.)", "norm"),
)
"""Regular expressions of transformers' names in prompt encoder and mask decoder, which families
share, and what Meta's names have in their place. They apply in this order."""

POSITIONS = "pe_layer.positional_encoding_gaussian_matrix"
"""The end of the name of the one tensor that transformers stores twice."""

POINTS = "point_embeddings.weight"
"""The end of a name under which transformers may store the embeddings of all labels in one."""

ONLY_THERE = re.compile(
    r"(^|\.)(upscale_conv\d|upscale_layer_norm|mask_embed|point_embed|proj_in|proj_out|o_proj"
    r"|layer_norm\w*|shared_embedding|shared_image_embedding)\."
)
"""A part of a name that transformers has and Meta has not."""


@dataclass(frozen=True)
class HuggingFace:
    """What differs between transformers' and Meta's files of one family.

    Attributes:
        model_types: values of `model_type` in the config.json of models that fit.
        marks: beginnings of names that tell this family from families before it in the registry.
        names: beginnings of all names that such a file may have.
        renames: regular expressions of names and their replacements, in order.
        settings: returns the entries of the config.json that a preset needs, by dotted name. Only
            entries that change the result are there.
        defaults: transformers' own values of these entries, for a config.json that omits them.
    """

    model_types: tuple[str, ...]
    marks: tuple[str, ...]
    names: tuple[str, ...]
    renames: tuple[tuple[str, str], ...]
    settings: Callable[[Any], Mapping[str, Any]]
    defaults: Mapping[str, Any]

    def recognises(self, names: Iterable[str]) -> bool:
        """Return whether a file with tensors of these names is of this family, whole or in part."""
        listed = list(names)
        marked = any(name.startswith(self.marks) for name in listed)
        return marked and self.of_transformers(listed)

    @staticmethod
    def of_transformers(names: Iterable[str]) -> bool:
        """Return whether a part of a model has names that Meta's files do not have."""
        return any(ONLY_THERE.search(name) for name in names)

    def unknown(self, names: Iterable[str]) -> list[str]:
        """List the tensors that belong to no part of the model, one line each."""
        return [f"{name} is unknown" for name in names if not name.startswith(self.names)]

    def converted(self, tensors: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
        """Return a state dict with Meta's names and shapes.

        Args:
            tensors: with transformers' names, on any device.
            where: their file, for messages.

        Raises:
            CheckpointError: two tensors would be the same one and differ.
        """
        result: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            new = _renamed(name, self.renames)
            if new.endswith(POINTS) and tensor.ndim == 2:
                stem = new.removesuffix("weight")
                rows = {f"{stem}{i}.weight": tensor[i : i + 1] for i in range(len(tensor))}
            else:
                rows = {new: tensor}
            for each, row in rows.items():
                if each in result and not _is_copy(each, row, result[each]):
                    raise CheckpointError(f"{where}: {name} differs from another tensor {each}")
            result |= rows
        return result

    def differences(self, config: Mapping[str, Any], preset: Any) -> list[str]:
        """List the entries of a config.json that describe another model than the preset's."""
        problems = []
        for name, wanted in self.settings(preset).items():
            found = _entry(config, name)
            found = self.defaults[name] if found is None else found
            if _plain(found) != _plain(wanted):
                problems.append(f"{name} is {_plain(found)}, not {_plain(wanted)}")
        return problems


@lru_cache(maxsize=4096)
def _renamed(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    """Apply the replacements in order."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _is_copy(name: str, first: Tensor, second: Tensor) -> bool:
    """Return whether two tensors are the positional encoding, stored twice."""
    if not name.endswith(POSITIONS) or first.shape != second.shape:
        return False
    return first.is_meta or bool((first == second).all())


def _entry(config: Mapping[str, Any], name: str) -> Any:
    """Return a nested entry by its dotted name; None if it is not there."""
    value: Any = config
    for key in name.split("."):
        if value is None or not isinstance(value, Mapping):
            return value
        value = value.get(key)
    return value


def _plain(value: Any) -> Any:
    """Return lists for tuples, and one number for two equal ones, which mean height and width."""
    if isinstance(value, tuple | list):
        listed = list(value)
        return listed[0] if len(listed) == 2 and listed[0] == listed[1] else listed
    return value
