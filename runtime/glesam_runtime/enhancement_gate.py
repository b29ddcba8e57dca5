"""Define the type of `enhancement_gate` in manifest.json, which says what images to enhance.

The gate only adds knowledge: a reader that does not know it enhances every image, as it did before
(docs/adr/0027). `enhancing.py` computes with it, and in C++ enhancing.cpp does.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from glesam_runtime.checked_text import Sha256

CHANNELS = 256
"""Channels of z_L, in every family."""
GRID = 16
"""Maximum number of rows and of columns of z_L that the features use."""

Number = Annotated[float, Meta(ge=-1e12, le=1e12)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Weights = Annotated[tuple[Number, ...], Meta(min_length=2 * CHANNELS, max_length=2 * CHANNELS)]
GateTarget = Literal["latent", "agreement", "iou"]


class GateCurvePoint(msgspec.Struct, frozen=True):
    """A point of the receiver operating curve: what another threshold would do."""

    threshold: Number
    enhanced: Fraction
    """The share of all cases that are enhanced."""
    hits: Fraction
    """The share of the cases that the enhancer helps which are enhanced."""
    false_alarms: Fraction
    """The share of the other cases which are enhanced."""


class GateTraining(msgspec.Struct, frozen=True):
    """What a gate was learned from. Informative.

    A case is a picture in a condition: clear, at an LQSeg level, or with a single degradation.
    """

    data: str
    """The pictures, as the user named them."""
    pictures: Count
    cases: Count
    kinds: tuple[str, ...]
    """The conditions."""
    seed: Count
    correlation: Annotated[float, Meta(ge=-1, le=1)]
    """The correlation of estimate and gain on pictures that a fit has not seen."""
    area: Fraction
    """The area under the curve."""
    curve: tuple[GateCurvePoint, ...]
    """Measured on pictures that a fit has not seen."""


class EnhancementGate(msgspec.Struct, frozen=True):
    """A predictor of the enhancer's gain from z_L: an image is enhanced if it exceeds a threshold.

    The features of an image are the mean and the deviation of each channel of z_L over a grid of
    positions: every k-th row and column, from 0, of those that the image covers, which are the
    first ceil(h / 16) rows and ceil(w / 16) columns for an image that is resized to h x w pixels.
    k is ceil(S / 16 / 16), so that there are at most 16 x 16 positions. All arithmetic is in
    float64. A sum of n terms adds the last floor(n / 2) to the first, element by element, and
    repeats this on the first ceil(n / 2) until one is left. The deviation is the square root of the
    mean square of the differences from the mean. The estimate is the sum of weight times feature,
    plus the bias; NaN counts as no gain.
    """

    encoder: Sha256
    """The hash of the encoder that the gate was learned for: SHA-256 of the hex digits of the
    hashes of its graph and of its data file, if it has one."""
    enhancer: Sha256
    """The same of the enhancer."""
    features: Literal["channel_moments"]
    weights: Weights
    """256 for the means, then 256 for the deviations."""
    bias: Number
    threshold: Number
    """Enhance an image if its estimate is greater."""
    target: GateTarget
    """What the estimate predicts. latent: by how much the enhancer brings z_L nearer to the z_L of
    the clear picture, divided by the length of that. agreement: by how much the masks' IoU with
    those of the clear picture grows. iou: by how much their IoU with the truth grows."""
    training: GateTraining
