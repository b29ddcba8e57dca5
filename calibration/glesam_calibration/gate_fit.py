"""Fit a gate: a ridge regression of the gain on features of z_L, its threshold and its curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glesam_runtime.enhancement_gate import GateCurvePoint

FOLDS = 5
"""Parts of the pictures; each is estimated by a fit on the others."""
TOLERANCE = 0.0005
"""What a condition's mean may lose against the better of always and never, in the target's unit."""
CURVE_POINTS = 21

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear function of the features."""

    weights: Values
    bias: float

    def __call__(self, features: Values) -> Values:
        """Return the estimates of features [N, 512]."""
        return features @ self.weights + self.bias


def fit_ridge(features: Values, targets: Values, penalty: float) -> Linear:
    """Fit targets [N] by features [N, F], with a penalty on the weights of standardised features.

    A feature that is constant gets the weight zero.

    Args:
        features: the features.
        targets: what to fit.
        penalty: the penalty per case; 1 weighs it like the variance of a feature.
    """
    middle, spread = features.mean(axis=0), features.std(axis=0)
    spread = np.where(spread > 1e-12 * np.maximum(1, np.abs(middle)), spread, np.inf)
    scaled = (features - middle) / spread
    count, size = scaled.shape
    gram = scaled.T @ scaled / count + penalty * np.eye(size)
    weights = np.linalg.solve(gram, scaled.T @ (targets - targets.mean()) / count) / spread
    return Linear(weights, float(targets.mean() - middle @ weights))


def expected_gains(gains: Values, kinds: NDArray[np.str_]) -> Values:
    """Return for each case what a gate is to estimate: its condition's mean gain, cut to a limit.

    The gain on one picture is mostly noise of the decoder. And a large gain is as easy to decide
    for as a middling one, but would dominate a fit by squares. The limit is the median of the
    conditions' absolute mean gains. Both make gates decide better on pictures that a fit has not
    seen (docs/adr/0027). A single condition has nothing to tell apart by means, so its gains stay.
    """
    named, where = np.unique(kinds, return_inverse=True)
    if len(named) == 1:
        return gains
    means = np.bincount(where, gains) / np.bincount(where)
    limit = float(np.median(np.abs(means)))
    return np.asarray(np.clip(means, -limit, limit)[where])


def held_out_estimates(
    features: Values, targets: Values, groups: NDArray[np.generic], penalty: float
) -> Values:
    """Return for each case the estimate of a fit on the cases of the other groups."""
    estimates = np.empty(len(targets))
    for group in np.unique(groups):
        inside = groups == group
        fitted = fit_ridge(features[~inside], targets[~inside], penalty)
        estimates[inside] = fitted(features[inside])
    return estimates


def folds_of(pictures: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the fold of each case; all cases of a picture are in one."""
    _, numbers = np.unique(pictures, return_inverse=True)
    return np.asarray(numbers % FOLDS, np.int64)


@dataclass(frozen=True)
class Outcome:
    """What a threshold does to a set of cases."""

    enhanced: float
    """The share of cases that are enhanced."""
    losses: dict[str, float]
    """For each condition the mean score of the better of always and never, minus the gate's."""

    @property
    def worst(self) -> float:
        """Return the largest loss."""
        return max(self.losses.values())


def outcome(gains: Values, kinds: NDArray[np.str_], estimates: Values, threshold: float) -> Outcome:
    """Return what a threshold does."""
    taken = estimates > threshold
    losses = {}
    for kind in np.unique(kinds):
        here = kinds == kind
        best = max(0.0, float(gains[here].mean()))
        losses[str(kind)] = best - float((gains[here] * taken[here]).mean())
    return Outcome(float(taken.mean()), losses)


def choose_threshold(gains: Values, kinds: NDArray[np.str_], estimates: Values) -> float:
    """Return the threshold that enhances least among those that lose least.

    Losses up to TOLERANCE in every condition count as none. If no threshold keeps to that, the one
    with the smallest worst loss is taken.
    """
    steps = np.quantile(estimates, np.linspace(0, 1, 201))
    tried = [*((steps[1:] + steps[:-1]) / 2), steps[-1] + 1e-9]
    found = [(each, outcome(gains, kinds, estimates, each)) for each in tried]
    keeping = [(each, made) for each, made in found if made.worst <= TOLERANCE]
    if keeping:
        return float(min(keeping, key=lambda pair: (pair[1].enhanced, -pair[0]))[0])
    return float(min(found, key=lambda pair: (pair[1].worst, pair[1].enhanced))[0])


def curve_of(gains: Values, estimates: Values) -> tuple[float, tuple[GateCurvePoint, ...]]:
    """Return the area under the receiver operating curve, and points of the curve.

    A case is a hit if it is enhanced and gains. The area is 0.5 if all cases gain or none does.
    """
    good = gains > 0
    points = []
    for threshold in np.quantile(estimates, np.linspace(0, 1, CURVE_POINTS)):
        taken = estimates > threshold
        points.append(
            GateCurvePoint(
                threshold=float(threshold),
                enhanced=float(taken.mean()),
                hits=_share(taken[good]),
                false_alarms=_share(taken[~good]),
            )
        )
    if good.all() or not good.any():
        return 0.5, tuple(points)
    _, ranks, counts = np.unique(estimates, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    wins = middle[ranks][good].sum() - good.sum() * (good.sum() + 1) / 2
    return float(wins / (good.sum() * (~good).sum())), tuple(points)


def correlation(first: Sequence[float] | Values, second: Values) -> float:
    """Return the correlation of two sets of values, 0 if one is constant."""
    if np.std(first) == 0 or np.std(second) == 0:
        return 0.0
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))


def _share(taken: NDArray[np.bool_]) -> float:
    return float(taken.mean()) if len(taken) else 0.0
