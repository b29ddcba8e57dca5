"""How long and how fast a training goes."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
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
