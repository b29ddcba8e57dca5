"""Show an image in a condition: clear, LQ-1 to LQ-3, or with one single degradation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from glesam_evaluation.degrade import (
    LQSEG,
    SINGLE,
    UNSEEN,
    VISIBILITY,
    ReleasedSettings,
    Settings,
    degrade,
    degrade_single,
    degrade_with_masks,
)
from glesam_evaluation.seeds import derive
from glesam_runtime.errors import InputError

CLEAR = "clear"
LQ = ("LQ-1", "LQ-2", "LQ-3")
CONDITIONS = (CLEAR, *LQ, *SINGLE)
"""All conditions. Those of `UNSEEN` and `VISIBILITY` are in no LQSeg recipe; blur, noise and jpeg
are single steps of one."""
DEFAULT = (CLEAR, *LQ, *UNSEEN)
WITH_VISIBILITY = (CLEAR, *LQ, *VISIBILITY)

SEVERITY = 0.7
"""Severity of the degradations of our own, from 0 to 1: clearly visible, with objects still
recognisable. Those of UNSEEN have severity 1, which is their published strength."""

_SETS = {"unseen": tuple(UNSEEN), "visibility": tuple(VISIBILITY)}


def parse_conditions(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of CONDITIONS; `unseen` and `visibility` stand for their kinds.

    Raises:
        InputError: a name is unknown, or the list is empty.
    """
    known = {name.lower(): (name,) for name in CONDITIONS} | _SETS
    names = ", ".join((*CONDITIONS, *_SETS))
    words = [word.strip() for word in text.split(",") if word.strip()]
    chosen: list[str] = []
    for word in words:
        if word.lower() not in known:
            raise InputError(f"condition {word!r}: must be one of {names}")
        chosen += known[word.lower()]
    if not chosen:
        raise InputError(f"conditions {text!r}: name at least one of {names}")
    return tuple(dict.fromkeys(chosen))


def severity_of(kind: str) -> float:
    """Return the severity of a single degradation in an evaluation."""
    return 1.0 if kind in UNSEEN else SEVERITY


def show(
    image: npt.NDArray[np.uint8],
    condition: str,
    seed: int,
    name: str,
    recipe: Settings | ReleasedSettings = LQSEG,
) -> npt.NDArray[np.uint8]:
    """Return an image in a condition; both are uint8 RGB [H,W,3].

    The degradation depends only on `seed`, the recipe and the image's `name`. LQ-1, LQ-2 and LQ-3
    of an image therefore differ only in their level, and a result does not depend on the other
    conditions.

    Raises:
        InputError: the condition is unknown.
    """
    if condition == CLEAR:
        return image
    drawn = derive(seed, name, "degradation")
    if condition in LQ:
        return degrade(image, 1 + LQ.index(condition), drawn, recipe)
    if condition in SINGLE:
        return degrade_single(image, condition, severity_of(condition), drawn)
    raise InputError(f"condition {condition!r}: must be one of {', '.join(CONDITIONS)}")


def show_with_masks(
    image: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    condition: str,
    seed: int,
    name: str,
    recipe: Settings | ReleasedSettings = LQSEG,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Return an image in a condition and its masks, bool [K,H,W], which move where it is warped.

    Raises:
        InputError: the condition is unknown.
    """
    if condition not in SINGLE:
        return show(image, condition, seed, name, recipe), masks
    drawn = derive(seed, name, "degradation")
    return degrade_with_masks(image, masks, condition, severity_of(condition), drawn)
