"""How a command line asks for graphs to be typed and shaped."""

from __future__ import annotations

from typing import Literal, get_args

from glesam_runtime.errors import InputError
from glesam_runtime.manifest import PrecisionName

EXPORTED_PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "bf16")
MAX_BATCH = 1024


def one_precision(precision: str | None, fp16: bool, bf16: bool) -> PrecisionName:
    """The one precision that `--precision`, `--fp16` and `--bf16` ask for.

    Raises:
        InputError: two of them differ, or the name is unknown.
    """
    asked = {precision} - {None} | ({"fp16"} if fp16 else set()) | ({"bf16"} if bf16 else set())
    if len(asked) > 1:
        raise InputError(
            f"--precision: asked for {' and '.join(sorted(map(str, asked)))}; pass one"
        )
    name = next(iter(asked), "fp32")
    for known in EXPORTED_PRECISIONS:
        if name == known:
            return known
    hint = "; it comes from calibration" if name in get_args(PrecisionName) else ""
    raise InputError(f"--precision {name}: choose fp32, fp16 or bf16{hint}")


def batch_size(batch: str) -> int | Literal["dynamic"]:
    """N of encoder and enhancer: a number from 1, or "dynamic".

    Raises:
        InputError: anything else.
    """
    if batch == "dynamic":
        return "dynamic"
    if batch.isdecimal() and len(batch) < 10 and 1 <= int(batch) <= MAX_BATCH:
        return int(batch)
    raise InputError(f"--batch {batch}: pass a number from 1 to {MAX_BATCH}, or 'dynamic'")
