"""The options of glesam-bench: what they are called, and what is wrong with them."""

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
    str, typer.Argument(metavar="[BUNDLE]", help="A bundle folder; 'nano' is the built-in one.")
]
Rounds = Annotated[
    int, typer.Option(min=1, metavar="N", help="Rounds timed, after one that warms up.")
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="DIR", help="Folder for the same as text, JSON and a picture."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error.")]


@dataclass(frozen=True)
class Engines:
    """Which engines run the bundle, and how: `EngineChoice` for several."""

    backend: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=ENGINE,
            metavar="NAME[:PRECISION]",
            help="auto, onnxruntime, openvino or tensorrt, repeatable; 'openvino:bf16' computes in "
            "bf16. Default: every engine here that runs the bundle.",
        ),
    ] = None
    device: Device = None
    precision: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ENGINE, help="Of engines without one: fp32, bf16 or fp16 (openvino)."
        ),
    ] = None
    threads: Threads = None
    cache: Cache = None
    cuda_graphs: CudaGraphs = False

    @property
    def common(self) -> EngineChoice:
        """What all of them share."""
        return EngineChoice(
            device=self.device,
            precision=self.precision,
            threads=self.threads,
            cache=self.cache,
            cuda_graphs=self.cuda_graphs,
        )


def check_output(output: Path | None) -> None:
    """Refuse what cannot be written to before minutes are spent.

    Raises:
        InputError: it is a file, or there is nothing to draw with.
    """
    if output is None:
        return
    if output.exists() and not output.is_dir():
        raise InputError(f"-o {output}: is a file, a folder is needed")
    from glesam_evaluation.plot import require_matplotlib

    require_matplotlib()


def open_bundle(bundle: str) -> Bundle:
    """A bundle by its folder, or the built-in one by the name nano.

    Raises:
        BundleError: it cannot be opened.
    """
    from glesam_runtime import bundle as bundles

    return bundles.open_bundle(None if bundle == "nano" and not Path(bundle).exists() else bundle)
