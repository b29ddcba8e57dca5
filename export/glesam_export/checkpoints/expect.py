"""Holds a file against what the option takes that it was given by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glesam_export.checkpoints import identify
from glesam_export.checkpoints.identify import Finding, Kind
from glesam_export.presets import PRESETS, Preset
from glesam_runtime.errors import CheckpointError

TAKEN: Mapping[Kind, str] = {
    "sam": "SAM's weights",
    "unet": "a U-Net's weights",
    "lora": "a LoRA",
}
"""What an option that takes a file of tensors wants."""


def detect_sam(path: Path) -> Preset:
    """The one preset that a SAM or SAM 2 file fits.

    Raises:
        CheckpointError: it is no SAM, and what it is instead; or one of no preset, or of two.
    """
    finding = require(path, "--sam", "sam")
    if not finding.fits:
        raise CheckpointError(f"--sam {path}: {finding.words}; no preset fits it")
    if len(finding.fits) > 1:
        both = " and ".join(finding.fits)
        raise CheckpointError(f"--sam {path}: fits {both} alike; say which by --preset")
    return PRESETS[finding.fits[0]]


def require(path: Path, option: str, kind: Kind) -> Finding:
    """Refuse a file that was given in another one's place.

    Args:
        path: a file of tensors.
        option: the one it was given by.
        kind: what that option takes.

    Raises:
        CheckpointError: unreadable, or of another kind, which is named.
    """
    finding = identify.tensors(path, option)
    if finding.kind != kind:
        raise CheckpointError(f"{option} {path}: not {TAKEN[kind]} but a {finding.words}")
    return finding
