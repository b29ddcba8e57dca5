"""Define the settings of a training, and choose the automatic ones for this machine."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from dataclasses import dataclass

import torch
from accelerate import PartialState

from glesam_runtime.machine import trains_faster_in_bfloat16


@dataclass(frozen=True)
class TrainingSettings:
    """The length, speed and reporting of a training.

    Attributes:
        iterations: optimizer steps.
        batch: images per step, over all processes together.
        lr: highest learning rate.
        warmup: iterations over which the learning rate rises from zero.
        decay: whether the learning rate then falls to zero along a cosine; otherwise it stays
            constant, as in the paper.
        weight_decay: AdamW's weight decay.
        clip: largest norm of the gradient.
        save_every: iterations between two saved states.
        log_every: iterations between two reports.
        workers: processes that prepare examples; 0 prepares them in the training process, None
            chooses a number for the machine.
        mixed_precision: "no", "fp16", "bf16", or "auto" (bf16 if the device is faster with it).
        seed: seed of torch's generator.
    """

    iterations: int
    batch: int = 4
    lr: float = 1e-4
    warmup: int = 0
    decay: bool = False
    weight_decay: float = 0.01
    clip: float = 1.0
    save_every: int = 500
    log_every: int = 20
    workers: int | None = 1
    mixed_precision: str = "no"
    seed: int = 0

    def lr_at(self, iteration: int) -> float:
        """Return the learning rate of an iteration, counted from 0."""
        rise = min(1.0, (iteration + 1) / (self.warmup + 1))
        if not self.decay:
            return self.lr * rise
        share = max(0, iteration - self.warmup) / max(1, self.iterations - self.warmup)
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * share))


def worker_count(wanted: int | None) -> int:
    """Return the number of worker processes.

    On a CPU it is 0: training uses every core, so a worker takes more than it saves. On a GPU,
    which would wait for examples, all cores but one prepare them, shared among the training
    processes.

    Args:
        wanted: a number, or None to choose one for the machine.
    """
    if wanted is not None:
        return wanted
    state = PartialState()
    if state.device.type == "cpu":
        return 0
    cores = os.cpu_count() or 2
    return max(1, (cores - 1) // int(state.num_processes))


MIXED_PRECISIONS = ("no", "fp16", "bf16", "auto")
"""accelerate's choices, and "auto"."""


def precision_to_use(wanted: str) -> str:
    """Return accelerate's mixed precision; "auto" becomes bf16 if the device is faster with it.

    Args:
        wanted: one of `MIXED_PRECISIONS`.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if _gains_from_bfloat16(PartialState().device.type) else "no"


def _gains_from_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and trains_faster_in_bfloat16()


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


def keep_freed_memory() -> None:
    """Keep glibc from returning freed tensors to the system, which clears every page again.

    An iteration of nano on two cores takes 0.7 s with this, and between 1.1 and 11 s without.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has no mallopt and does not need it
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
