"""Turn a seed into random numbers: a generator of its own, or a further seed for one use of it.

A file of its own because every other module of this package may import it; it imports none of them.
"""

from __future__ import annotations

import hashlib
import json
import operator

import numpy as np

from glesam_runtime.errors import InputError


def generator(seed: int) -> np.random.Generator:
    """Return the random generator of a seed.

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


def derive(seed: int, *words: str | int) -> int:
    """Return a further seed for one use of a seed, the same in every process and on every machine.

    The words name the use, such as the name of an image and "points".

    Raises:
        InputError: `seed` is not a whole number >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed {seed!r}: must be a whole number >= 0")
    # json escapes to ASCII, because a file name may contain bytes that are no UTF-8.
    digest = hashlib.sha256(json.dumps([seed, *words]).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "little")
