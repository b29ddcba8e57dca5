"""How long and how fast a training goes."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from dataclasses import dataclass

import torch
from accelerate import PartialState

from glesam_runtime.machine import multiplies_bfloat16


@dataclass(frozen=True)
class TrainingSettings:
    """How long and how fast.

    Attributes:
        iterations: optimizer steps.
        batch: images a step, over all processes together.
        lr: highest learning rate.
        warmup: iterations over which it rises from nothing.
        decay: whether it then falls to nothing along a cosine, else it stays (the paper's).
        weight_decay: AdamW's.
        clip: largest norm of the gradient.
        save_every: iterations between two saved states.
        log_every: iterations between two reports.
        workers: processes that prepare examples; 0 prepares them in this one, None is as many as
            suit the machine.
        mixed_precision: "no", "fp16", "bf16", or "auto": bf16 where the machine multiplies it.
        seed: of torch's generator.
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
        """The learning rate of an iteration, counted from 0."""
        rise = min(1.0, (iteration + 1) / (self.warmup + 1))
        if not self.decay:
            return self.lr * rise
        share = max(0, iteration - self.warmup) / max(1, self.iterations - self.warmup)
        return self.lr * rise * 0.5 * (1 + math.cos(math.pi * share))


def worker_count(wanted: int | None) -> int:
    """The number of a plan's worker processes.

    A CPU that trains has no core to spare: a worker takes more from it than it saves. A GPU waits
    for examples otherwise; all cores but one make them, shared by the processes that train.

    Args:
        wanted: a number, or None for what suits the machine.
    """
    if wanted is not None:
        return wanted
    state = PartialState()
    if state.device.type == "cpu":
        return 0
    cores = os.cpu_count() or 2
    return max(1, (cores - 1) // int(state.num_processes))


MIXED_PRECISIONS = ("no", "fp16", "bf16", "auto")
"""As accelerate has them, and "auto"."""


def precision_to_use(wanted: str) -> str:
    """What accelerate is told: for "auto", bfloat16 where the device multiplies it, else float32.

    Args:
        wanted: one of `MIXED_PRECISIONS`.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if _has_bfloat16(PartialState().device.type) else "no"


def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device == "cpu" and multiplies_bfloat16()


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""


def keep_freed_memory() -> None:
    """Keep glibc from giving freed tensors back to the system, which clears every page again.

    Nano's iteration on two cores takes 0.7 s with it, and between 1.1 and 11 s without.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # musl has none, and no need of it
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)
