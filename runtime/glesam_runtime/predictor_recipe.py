"""Say how to load a predictor again: what a pickled predictor holds.

A file of its own because a pickle names the module: it must stay where it is when the predictor's
own modules are split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from glesam_runtime.bundle import open_bundle
from glesam_runtime.errors import BundleError

Made = TypeVar("Made")


@dataclass(frozen=True)
class Recipe:
    """The bundle of a predictor, and how the predictor was made."""

    path: Path | None
    """The bundle's folder; None is the built-in nano."""
    sha256: str
    arguments: dict[str, Any] = field(default_factory=dict)
    """The other arguments of the constructor."""


def load(recipe: Recipe, kind: Callable[..., Made]) -> Made:
    """Load the bundle again, and make the predictor.

    Args:
        recipe: what the pickle holds.
        kind: the predictor's class.

    Raises:
        BundleError: the bundle is missing, or another one by now.
    """
    bundle = open_bundle(recipe.path)
    if bundle.sha256 != recipe.sha256:
        raise BundleError(
            f"{bundle.path}: another bundle than the one of the predictor that was pickled "
            f"({bundle.sha256[:12]} instead of {recipe.sha256[:12]}); create the predictor again"
        )
    return kind(bundle, **recipe.arguments)
