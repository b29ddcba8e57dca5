"""Choose among the timesteps of an enhancer that holds several of them.

Such an enhancer is the feature "timestep_levels" of a bundle. Its weights serve all timesteps; only
the constants of each timestep differ. Callers name a timestep, and the graph takes its index in the
manifest, one for each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.manifest import Manifest, TimestepLevel

LEVEL = "level"
"""Name of the enhancer's input [N]: the index of each image's timestep, as a float32."""


def levels_of(manifest: Manifest) -> tuple[TimestepLevel, ...]:
    """Return the timesteps that a bundle can run, in ascending order; empty if it has one only."""
    return manifest.model.timestep_levels or ()


def check_timestep(manifest: Manifest, timestep: int | None) -> int | None:
    """Return the timestep that runs when a caller asks for one; None for a bundle without levels.

    Args:
        manifest: the bundle's manifest.
        timestep: what the caller asks for; None is the bundle's default.

    Raises:
        InputError: the bundle does not have the timestep.
    """
    levels = levels_of(manifest)
    if timestep is None:
        return manifest.model.timestep if levels else None
    if not levels:
        raise InputError(
            f"timestep {timestep}: this bundle has timestep {manifest.model.timestep} only; leave "
            "it out, or export the checkpoint with several (--timestep 1,100,400,999)"
        )
    if timestep not in [level.timestep for level in levels]:
        known = ", ".join(str(level.timestep) for level in levels)
        raise InputError(f"timestep {timestep}: this bundle has {known}; choose one of them")
    return timestep


def asked_timestep(manifest: Manifest, timestep: int | None, enhance: bool) -> int | None:
    """Return what a caller asks for, checked; None where nothing was asked for.

    Raises:
        InputError: the bundle does not have the timestep, or the enhancer does not run.
    """
    if timestep is None:
        return None
    if not enhance:
        raise InputError(
            f"timestep {timestep}: goes with the enhancer, which does not run; leave it out"
        )
    return check_timestep(manifest, timestep)


def level_tensor(
    manifest: Manifest, timestep: int | Sequence[int] | None, images: int
) -> NDArray[np.float32] | None:
    """Return the enhancer's input `level` for a call; None for a bundle without levels.

    Args:
        manifest: the bundle's manifest.
        timestep: one for all images, or one for each; None is the bundle's default.
        images: number of images of the call.

    Raises:
        InputError: the bundle does not have a timestep, or their number is not that of the images.
    """
    asked = timestep if isinstance(timestep, Sequence) else [timestep] * images
    if len(asked) != images:
        raise InputError(f"timestep: {len(asked)} values for {images} images; give one for each")
    chosen = [check_timestep(manifest, each) for each in asked]
    steps = [level.timestep for level in levels_of(manifest)]
    if not steps:
        return None
    return np.asarray([steps.index(each) for each in chosen if each is not None], np.float32)


def golden_name(timestep: int) -> str:
    """Return the golden file's name of the enhancer's output at a timestep that is no default."""
    return f"enhanced_embeddings_{timestep}"
