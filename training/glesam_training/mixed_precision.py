"""What a training computes in, where it is left to the machine."""

from __future__ import annotations

import torch
from accelerate import PartialState

from glesam_runtime.machine import multiplies_bfloat16

CHOICES = ("no", "fp16", "bf16", "auto")
"""As accelerate has them, and "auto"."""


def chosen(wanted: str) -> str:
    """What accelerate is told: for "auto", bfloat16 where the device multiplies it, else float32.

    Args:
        wanted: one of `CHOICES`.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if _has_bfloat16(PartialState().device.type) else "no"


def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and multiplies_bfloat16()
