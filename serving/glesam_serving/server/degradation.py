"""Degrade an image, if the evaluation package is installed beside the server.

The server stands on the runtime alone, so it asks for the package by name at run time (ADR 18).
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from glesam_serving.problems import ProblemError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MODULE = "glesam_evaluation.degrade"


@lru_cache(maxsize=1)
def _evaluation() -> Any:
    """Return the module that degrades images, None if it or what it needs is not installed."""
    try:
        return importlib.import_module(_MODULE)
    except ImportError:
        return None


def is_available() -> bool:
    """Return whether images can be degraded."""
    return _evaluation() is not None


def degrade(pixels: NDArray[np.uint8], level: int, seed: int) -> NDArray[np.uint8]:
    """Return an image degraded to LQ-1, LQ-2 or LQ-3, uint8 [H, W, 3].

    Raises:
        ProblemError: the evaluation package is not installed.
    """
    module = _evaluation()
    if module is None:
        raise ProblemError(
            404,
            "this server cannot degrade images, because the evaluation package is not installed; "
            "install 'glesam-deploy[calibration]' beside it",
        )
    low: NDArray[np.uint8] = module.apply_recipe(pixels, module.sample_recipe(level, seed))
    return low
