"""How fast this machine multiplies matrices: what a share of its rate is a share of."""

from __future__ import annotations

import time

import torch

from glesam_benchmark.pytorch import set_threads
from glesam_runtime.machine import multiplies_bfloat16

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_LEAST_RUNS, _LEAST_SECONDS = 3, 1.5


@torch.no_grad()
def matrix_rates(threads: int | None, side: int) -> dict[str, float]:
    """Operations a second of the fastest product of two `side` x `side` matrices.

    Returns:
        By precision; bfloat16 is left out where the CPU has none, and one product takes minutes.
    """
    set_threads(threads)
    rates = {}
    for name, dtype in _DTYPES.items():
        if dtype == torch.bfloat16 and not multiplies_bfloat16():
            continue
        a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
        out = torch.empty(side, side, dtype=dtype)
        torch.matmul(a, b, out=out)
        seconds: list[float] = []
        while len(seconds) < _LEAST_RUNS or sum(seconds) < _LEAST_SECONDS:
            start = time.perf_counter()
            torch.matmul(a, b, out=out)
            seconds.append(time.perf_counter() - start)
        rates[name] = 2 * side**3 / min(seconds)
    return rates
