"""Registers the SAM families.

A family is one folder here and one line in `FAMILIES`. Everything that differs between families
lies in the folder: presets, PyTorch reference, graphs, checkpoint keys, and the rules for images,
masks and prompts. Other modules ask `family_of(preset)` and never compare names.

Importing this package needs neither torch nor sam2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from glesam_export.families.family import Family, InputName, Preset
from glesam_export.families.sam import SamFamily
from glesam_export.families.sam2 import Sam2Family
from glesam_runtime.chain import EMBEDDINGS

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "FAMILIES",
    "Family",
    "InputName",
    "Preset",
    "family_of",
    "named_features",
    "presets",
    "with_input",
]

FAMILIES: dict[str, Family[Any]] = {
    SamFamily.name: SamFamily(),
    Sam2Family.name: Sam2Family(),
}
"""The families by name. A file is offered to the last family first, because the keys of a later
family may begin like those of an earlier one."""


def family_of(preset: Preset) -> Family[Any]:
    """Return the family that a preset belongs to."""
    return FAMILIES[preset.family]


def with_input(preset: Preset, name: InputName | None) -> Preset:
    """Return the preset with this input; None keeps the preset's own.

    Raises:
        InputError: the preset's family does not have this input.
    """
    if name is None:
        return preset
    prepared: Preset = family_of(preset).with_input(preset, name)
    return prepared


def presets() -> dict[str, Preset]:
    """Return the presets of all families, by name."""
    return {name: each for family in FAMILIES.values() for name, each in family.presets.items()}


HIGH_RES = ("high_res_feats_0", "high_res_feats_1")
"""The contract's names of an encoder's additional outputs, which only some families have."""


def named_features(encoded: Tensor | tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Return an encoder's outputs by the contract's names.

    Args:
        encoded: z_L alone, or z_L and the high-resolution features.
    """
    features = encoded if isinstance(encoded, tuple) else (encoded,)
    return dict(zip((EMBEDDINGS, *HIGH_RES), features, strict=False))
