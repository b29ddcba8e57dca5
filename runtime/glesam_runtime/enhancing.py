"""Decide for an image whether to enhance it: always, never, or as the bundle's gate estimates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
import numpy as np

from glesam_runtime import manifest_file
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.enhancement_gate import CHANNELS, GRID
from glesam_runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.chain import Features
    from glesam_runtime.enhancement_gate import EnhancementGate
    from glesam_runtime.image import Geometry
    from glesam_runtime.manifest import Manifest

Mode: TypeAlias = bool | Literal["auto"]
"""True enhances every image, False none, "auto" those that the bundle's gate chooses."""

_PATCH = 16
"""Pixels of the resized image per position of z_L, along each side."""


@dataclass(frozen=True)
class Branch:
    """What was decided for an image."""

    enhanced: bool
    estimate: float | None = None
    """The gate's estimate of the gain; None if no gate was asked."""


@dataclass(frozen=True, eq=False)
class Enhancing:
    """How a predictor decides which images to enhance."""

    mode: Mode
    gate: EnhancementGate | None
    """The gate of the mode "auto"."""

    @classmethod
    def of(cls, bundle: Bundle, asked: Mode | None) -> Enhancing:
        """Return how to decide with a bundle.

        Args:
            bundle: the bundle that runs.
            asked: the mode; None is "auto" for a bundle with a gate and True for others.

        Raises:
            InputError: the mode is unknown, or it is "auto" and the bundle has no gate.
            BundleError: the gate belongs to another bundle.
        """
        if asked is not None and asked != "auto" and not isinstance(asked, bool):
            raise InputError(f'enhance={asked!r}: must be True, False, "auto" or None')
        if isinstance(asked, bool):
            return cls(asked, None)
        gate = bundle.manifest.enhancement_gate
        if not isinstance(gate, msgspec.UnsetType):
            check_gate(bundle, gate)
            return cls("auto", gate)
        if asked == "auto":
            raise InputError(
                f"{bundle.path}: has no gate to enhance by; learn one with 'glesam-calibrate "
                "gate', or enhance always or never"
            )
        return cls(True, None)

    @property
    def may_enhance(self) -> bool:
        """Return whether the enhancer can be needed."""
        return self.mode is not False

    def accepts(self, enhanced: bool) -> bool:
        """Return whether an embedding, with or without the enhancer, can come from this mode."""
        return self.mode == "auto" or self.mode == enhanced

    def decide(self, engine: Engine, features: Features, geometry: Geometry) -> Branch:
        """Decide whether to enhance an image.

        Args:
            engine: the engine that encoded it.
            features: the result of `chain.encode`.
            geometry: the image's sizes.
        """
        if self.gate is None:
            return Branch(self.mode is True)
        z_l = engine.to_host(features[EMBEDDINGS])
        estimate = estimate_gain(self.gate, z_l, geometry)
        return Branch(estimate > self.gate.threshold, estimate)


def check_gate(bundle: Bundle, gate: EnhancementGate) -> None:
    """Refuse a gate that was learned for other graphs, because its estimates would mean nothing.

    Raises:
        BundleError: the encoder or the enhancer is another one.
    """
    for stage, hash_then in (("encoder", gate.encoder), ("enhancer", gate.enhancer)):
        hash_now = manifest_file.stage_sha256(bundle.manifest.stages[stage])  # type: ignore[index]
        if hash_now != hash_then:
            raise BundleError(
                f"{bundle.path}: its enhancement gate was learned for another {stage} "
                f"({hash_then[:12]} instead of {hash_now[:12]}); learn it again with "
                "'glesam-calibrate gate', or enhance always or never"
            )


def with_own_gate(manifest: Manifest) -> Manifest:
    """Return the manifest of a compiled bundle, whose gate now names the compiled graphs.

    An engine computes what its graph computes, so the gate stays valid.
    """
    gate = manifest.enhancement_gate
    if isinstance(gate, msgspec.UnsetType):
        return manifest
    own = msgspec.structs.replace(
        gate,
        encoder=manifest_file.stage_sha256(manifest.stages["encoder"]),
        enhancer=manifest_file.stage_sha256(manifest.stages["enhancer"]),
    )
    return msgspec.structs.replace(manifest, enhancement_gate=own)


def estimate_gain(gate: EnhancementGate, z_l: NDArray[np.float32], geometry: Geometry) -> float:
    """Return a gate's estimate of what the enhancer gains on an image.

    Every operation has a fixed order, so that C++ computes the same bits.

    Args:
        gate: the gate.
        z_l: the encoder's embeddings, [1, 256, S/16, S/16].
        geometry: the image's sizes.
    """
    weights = np.asarray(gate.weights, np.float64)
    return float(_sum(weights * channel_moments(z_l, geometry)) + gate.bias)


def channel_moments(z_l: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float64]:
    """Return the features of a gate: 256 means, then 256 deviations.

    Args:
        z_l: the encoder's embeddings, [1, 256, S/16, S/16].
        geometry: the image's sizes; what the image does not cover is left out.
    """
    step = -(-z_l.shape[-1] // GRID)
    rows, columns = (-(-side // _PATCH) for side in geometry.resized)
    taken = z_l[0, :, :rows:step, :columns:step].astype(np.float64)
    values = np.ascontiguousarray(taken.reshape(CHANNELS, -1).T)  # (256, n) -> (n, 256)
    means = _sum(values) / len(values)
    values -= means
    values *= values
    return np.concatenate([means, np.sqrt(_sum(values) / len(values))])


def _sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum over the first axis, by adding the second half to the first repeatedly."""
    while (count := len(values)) > 1:
        half = count // 2
        kept = values[: count - half].copy()
        kept[:half] += values[count - half :]
        values = kept
    return values[0]  # type: ignore[no-any-return]
