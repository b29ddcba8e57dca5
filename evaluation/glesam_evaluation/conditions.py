"""Show an image in a condition: clear, LQ-1 to LQ-3, or with one single degradation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glesam_evaluation.degrade import SINGLE, UNSEEN, degrade, degrade_single
from glesam_evaluation.seeds import derive
from glesam_runtime.errors import InputError

CLEAR = "clear"
LQ = ("LQ-1", "LQ-2", "LQ-3")
CONDITIONS = (CLEAR, *LQ, *SINGLE)
"""All conditions. Those of `UNSEEN` are in no LQSeg recipe; blur, noise, jpeg are single steps."""
DEFAULT = (CLEAR, *LQ, *UNSEEN)

SEVERITY = 0.7
"""Severity of every single degradation, from 0 to 1: clearly visible, with objects still
recognisable."""


def parse_conditions(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of CONDITIONS; `unseen` stands for all of UNSEEN.

    Raises:
        InputError: a name is unknown, or the list is empty.
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
    """Return an image in a condition; both are uint8 RGB [H,W,3].

    The degradation depends only on `seed` and the image's `name`. LQ-1, LQ-2 and LQ-3 of an image
    therefore differ only in their level, and a result does not depend on the other conditions.

    Raises:
        InputError: the condition is unknown.
    """
    if condition == CLEAR:
        return image
    drawn = derive(seed, name, "degradation")
    if condition in LQ:
        return degrade(image, 1 + LQ.index(condition), drawn)
    if condition in SINGLE:
        return degrade_single(image, condition, SEVERITY, drawn)
    raise InputError(f"condition {condition!r}: must be one of {', '.join(CONDITIONS)}")
