"""The options of glesam-bench, and the checks that come before minutes of measuring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glesam_runtime.engine_choice import (
    ENGINE,
    Cache,
    CudaGraphs,
    Device,
    EngineChoice,
    Threads,
)
from glesam_runtime.errors import InputError

if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle

BundlePath = Annotated[
    str,
    typer.Argument(metavar="[BUNDLE]", help="A bundle folder, or 'nano' for the built-in bundle."),
]
Rounds = Annotated[
    int, typer.Option(min=1, metavar="N", help="Timed rounds, after one warm-up round.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Also write the results to this folder as text, JSON and a picture.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error.")]


@dataclass(frozen=True)
class Engines:
    """Which engines run the bundle, and how: like `EngineChoice`, but for several engines."""

    backend: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=ENGINE,
            metavar="NAME[:PRECISION]",
            help="auto, onnxruntime, openvino or tensorrt; repeatable. 'openvino:bf16' computes in "
            "bf16. Default: every installed engine that runs the bundle.",
        ),
    ] = None
    device: Device = None
    precision: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ENGINE,
            help="Precision of the engines that name none: fp32, bf16 or fp16 (openvino).",
        ),
    ] = None
    threads: Threads = None
    cache: Cache = None
    cuda_graphs: CudaGraphs = False

    @property
    def common(self) -> EngineChoice:
        """Return the options that all engines share."""
        return EngineChoice(
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            cache=self.cache,
            cuda_graphs=self.cuda_graphs,
        )


def check_output(output: Path | None) -> None:
    """Check that the reports can be written, before minutes are spent on measuring.

    Raises:
        InputError: the path is a file, or matplotlib is not installed.
    """
    if output is None:
        return
    if output.exists() and not output.is_dir():
        raise InputError(f"-o {output}: is a file; pass a folder")
    from glesam_evaluation.plot import require_matplotlib

    require_matplotlib()


def open_bundle(bundle: str) -> Bundle:
    """Open a bundle folder, or the built-in bundle by the name nano.

    Raises:
        BundleError: the bundle cannot be opened.
    """
    from glesam_runtime import bundle as bundles

    return bundles.open_bundle(None if bundle == "nano" and not Path(bundle).exists() else bundle)
