"""How a command line asks for graphs to be typed and shaped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from glesam_runtime.errors import InputError
from glesam_runtime.manifest import PrecisionName

EXPORTED_PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "bf16")
MAX_BATCH = 1024


@dataclass(frozen=True)
class GraphOptions:
    """How graphs are typed, shaped and judged, as asked on a command line."""

    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16.")] = None
    fp32: Annotated[bool, typer.Option("--fp32", help="Same as --precision fp32.")] = False
    fp16: Annotated[bool, typer.Option("--fp16", help="Same as --precision fp16.")] = False
    bf16: Annotated[bool, typer.Option("--bf16", help="Same as --precision bf16.")] = False
    batch: Annotated[
        str, typer.Option(help="Images a call of encoder and enhancer: a number, or 'dynamic'.")
    ] = "1"
    auto_islands: Annotated[
        bool,
        typer.Option(
            "--auto-islands",
            help="Where a gate fails in fp16 or bf16, keep what errs most in float32 until it "
            "passes.",
        ),
    ] = False
    image: Annotated[
        list[Path] | None,
        typer.Option(
            "--image", help="Verify on this image instead of a procedural one; repeatable."
        ),
    ] = None
    allow_parity_failure: Annotated[
        bool, typer.Option("--allow-parity-failure", help="Write a bundle outside its gate.")
    ] = False

    @property
    def flags(self) -> set[str]:
        """The precisions that are asked for by a flag of their own."""
        return {name for name in EXPORTED_PRECISIONS if getattr(self, name)}


def one_precision(precision: str | None, flags: set[str]) -> PrecisionName:
    """The one precision that `--precision` and `--fp32`, `--fp16`, `--bf16` ask for.

    Args:
        precision: by name; None where it was not given.
        flags: those given.

    Raises:
        InputError: two of them differ, or the name is unknown.
    """
    asked = {precision} - {None} | flags
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
