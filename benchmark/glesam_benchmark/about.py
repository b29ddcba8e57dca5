"""What every report says first: of which bundle, on which machine."""

from __future__ import annotations

import msgspec

from glesam_benchmark.machine import Host, host
from glesam_runtime.bundle import Bundle
from glesam_runtime.manifest import PrecisionName, StageName

FORMAT = "glesam-bench"
VERSION = 1


class About(msgspec.Struct, frozen=True):
    """The head of a report."""

    format: str
    version: int
    preset: str
    unet: str
    weights: str
    """In words."""
    sha256: str
    """Of the bundle's manifest."""
    precisions: dict[StageName, PrecisionName]
    """That the bundle's graphs are typed in."""
    host: Host
    rounds: int
    """In all, of each figure."""

    @property
    def model(self) -> str:
        """In words."""
        return f"{self.preset} with {self.unet}"


def about(bundle: Bundle, threads: int | None, rounds: int) -> About:
    """Of a bundle, here."""
    manifest = bundle.manifest
    return About(
        FORMAT,
        VERSION,
        manifest.model.preset,
        manifest.model.unet,
        manifest.provenance.weights,
        bundle.sha256,
        {name: stage.precision for name, stage in manifest.stages.items()},
        host(threads),
        rounds,
    )
