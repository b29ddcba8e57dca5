"""In what state an image is shown: clear, LQ-1..3, or under one degradation LQSeg has not."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import numpy.typing as npt

from glesam_evaluation.degrade import SINGLE, UNSEEN, degrade, degrade_single
from glesam_runtime.errors import InputError

CLEAR = "clear"
LQ = ("LQ-1", "LQ-2", "LQ-3")
CONDITIONS = (CLEAR, *LQ, *SINGLE)
"""All there are. The unseen ones are `UNSEEN`; blur, noise and jpeg are LQSeg's steps alone."""
DEFAULT = (CLEAR, *LQ, *UNSEEN)

SEVERITY = 0.7
"""Of every single degradation, from 0 to 1: plain to see, and the objects are still to be told."""


def parse_conditions(text: str) -> tuple[str, ...]:
    """Read a comma list of CONDITIONS, in which `unseen` means all of UNSEEN.

    Raises:
        InputError: a name that is none of these, or no name at all.
    """
    known = {name.lower(): (name,) for name in CONDITIONS} | {"unseen": tuple(UNSEEN)}
    words = [word.strip() for word in text.split(",") if word.strip()]
    chosen: list[str] = []
    for word in words:
        if word.lower() not in known:
            raise InputError(f"condition {word!r}: must be one of {', '.join(CONDITIONS)}, unseen")
        chosen += known[word.lower()]
    if not chosen:
        raise InputError(f"conditions {text!r}: name at least one of {', '.join(CONDITIONS)}")
    return tuple(dict.fromkeys(chosen))


def show(
    image: npt.NDArray[np.uint8], condition: str, seed: int, name: str
) -> npt.NDArray[np.uint8]:
    """The image in a condition; uint8 RGB [H,W,3] in and out.

    What is drawn depends on `seed` and the image's `name` alone: LQ-1, LQ-2 and LQ-3 of an image
    differ in the level only, and another condition beside it changes nothing.

    Raises:
        InputError: an unknown condition.
    """
    if condition == CLEAR:
        return image
    drawn = derive(seed, name, "degradation")
    if condition in LQ:
        return degrade(image, 1 + LQ.index(condition), drawn)
    if condition in SINGLE:
        return degrade_single(image, condition, SEVERITY, drawn)
    raise InputError(f"condition {condition!r}: must be one of {', '.join(CONDITIONS)}")


def derive(seed: int, *words: str | int) -> int:
    """A seed of its own for each use of one seed, the same in every process and on every machine.

    Raises:
        InputError: `seed` is not a whole number >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed {seed!r}: must be a whole number >= 0")
    # Escaped to ASCII: a file name need not be UTF-8.
    digest = hashlib.sha256(json.dumps([seed, *words]).encode("ascii")).digest()
    return int.from_bytes(digest[:8], "little")
