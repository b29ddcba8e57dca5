"""Errors as a manifest records them."""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

from glesam_runtime import compare
from glesam_runtime.manifest import Manifest, StageError


def stage_error(actual: NDArray[np.floating], expected: NDArray[np.floating]) -> StageError:
    """Relative L2 and largest difference; the largest float for what is not finite."""
    found = compare.relative_l2(actual, expected), compare.max_abs(actual, expected)
    # JSON has no infinity.
    return StageError(*(v if math.isfinite(v) else sys.float_info.max for v in found))


def solve_eps(
    z_l: NDArray[np.floating], z_h: NDArray[np.floating], manifest: Manifest
) -> NDArray[np.float64]:
    """Eq. 4 solved for eps, in float64: the U-Net's own answer.

    At T = 999 z_H is nearly z_L / sqrt(abar_T) and a relative error of it hides the U-Net's.
    """
    model = manifest.model
    root = model.alpha_bar**0.5
    eps: NDArray[np.float64] = model.gamma * (z_l.astype(np.float64) - root * z_h)
    eps /= (1 - model.alpha_bar) ** 0.5
    return eps
