"""One way from a seed to random numbers."""

from __future__ import annotations

import operator

import numpy as np

from glesam_runtime.errors import InputError


def generator(seed: int) -> np.random.Generator:
    """Return the generator that belongs to `seed`.

    Raises:
        InputError: `seed` is not a whole number >= 0.
    """
    try:
        value = operator.index(seed)
    except TypeError:
        value = -1
    if value < 0:
        raise InputError(f"seed {seed!r}: must be a whole number >= 0")
    return np.random.default_rng(value)
