"""Declares the options that control how graphs are exported and verified.

Each field of `GraphOptions` is an option of every command that exports a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

from glesam_runtime.errors import InputError
from glesam_runtime.manifest import PrecisionName

EXPORTED_PRECISIONS: tuple[PrecisionName, ...] = ("fp32", "fp16", "bf16")
MAX_BATCH = 1024

Images = Annotated[
    list[Path] | None,
    typer.Option(
        "--image",
        help="Image to verify on. Repeat it for several images. Default: a procedural scene.",
    ),
]


@dataclass(frozen=True)
class GraphOptions:
    """Collects the options for the precision, shape and verification of the graphs."""

    precision: Annotated[
        str | None,
        typer.Option(help="Precision of the graphs: fp32, fp16 or bf16. Default: fp32."),
    ] = None
    fp32: Annotated[bool, typer.Option("--fp32", help="Same as --precision fp32.")] = False
    fp16: Annotated[bool, typer.Option("--fp16", help="Same as --precision fp16.")] = False
    bf16: Annotated[bool, typer.Option("--bf16", help="Same as --precision bf16.")] = False
    batch: Annotated[
        str, typer.Option(help="Images per call of encoder and enhancer: a number or 'dynamic'.")
    ] = "1"
    auto_islands: Annotated[
        bool,
        typer.Option(
            "--auto-islands",
            help="If an fp16 or bf16 bundle fails its accuracy limits, keep the modules with the "
            "largest errors in float32 until it passes.",
        ),
    ] = False
    image_index: Annotated[
        bool,
        typer.Option(
            "--image-index",
            help="Write a decoder that takes prompts of several images in one call. Programs that "
            "do not know this feature, such as the C++ library, refuse the bundle.",
        ),
    ] = False
    attention_nodes: Annotated[
        bool,
        typer.Option(
            "--attention-nodes",
            help="Write each attention as one node (Attention, opset 23), for which ONNX Runtime "
            "has fused kernels on CUDA. For bundles that run on a GPU with ONNX Runtime.",
        ),
    ] = False
    image: Images = None
    verify: Annotated[
        str,
        typer.Option(
            metavar="LEVELS",
            help="Degradation levels to verify on: full (the clear image and LQ-1 to LQ-3), or "
            "fast (only the clear image and LQ-3 for fp32, all for fp16 and bf16).",
        ),
    ] = "fast"
    allow_parity_failure: Annotated[
        bool,
        typer.Option(
            "--allow-parity-failure",
            help="Write the bundle even if it fails its accuracy limits.",
        ),
    ] = False

    @property
    def flags(self) -> set[str]:
        """Return the precisions requested by flags such as --fp16."""
        return {name for name in EXPORTED_PRECISIONS if getattr(self, name)}


def verifies_all_levels(verify: str, precision: PrecisionName) -> bool:
    """Return whether `--verify` requests every level for graphs of a precision.

    Raises:
        InputError: the value is unknown.
    """
    if verify not in ("fast", "full"):
        raise InputError(f"--verify {verify}: choose fast or full")
    return verify == "full" or precision != "fp32"


def one_precision(precision: str | None, flags: set[str]) -> PrecisionName:
    """Return the precision that `--precision` and `--fp32`, `--fp16`, `--bf16` request.

    Args:
        precision: the value of `--precision`; None if it was not given.
        flags: the precisions whose flags were given.

    Raises:
        InputError: they request different precisions, or the name is unknown.
    """
    requested = {precision} - {None} | flags
    if len(requested) > 1:
        names = " and ".join(sorted(map(str, requested)))
        raise InputError(f"--precision: {names} were requested; pass only one")
    name = next(iter(requested), "fp32")
    for known in EXPORTED_PRECISIONS:
        if name == known:
            return known
    hint = "; it comes from calibration" if name in get_args(PrecisionName) else ""
    raise InputError(f"--precision {name}: choose fp32, fp16 or bf16{hint}")


def batch_size(batch: str) -> int | Literal["dynamic"]:
    """Return the batch size of encoder and enhancer: a number from 1, or "dynamic".

    Raises:
        InputError: the text is neither.
    """
    if batch == "dynamic":
        return "dynamic"
    if batch.isdecimal() and len(batch) < 10 and 1 <= int(batch) <= MAX_BATCH:
        return int(batch)
    raise InputError(f"--batch {batch}: pass a number from 1 to {MAX_BATCH}, or 'dynamic'")
