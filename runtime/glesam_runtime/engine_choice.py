"""The options that say which engine runs a bundle and how: every command that runs one has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from glesam_runtime.backends.base import EngineOptions

ENGINE = "Engine"
"""Their heading in --help."""


Device = Annotated[
    str | None,
    typer.Option(rich_help_panel=ENGINE, help="cpu, cuda or cuda:N; default is the backend's."),
]
Threads = Annotated[
    int | None, typer.Option(rich_help_panel=ENGINE, min=1, help="CPU threads to use.")
]
Cache = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=ENGINE,
        metavar="DIR",
        help="Keep compiled graphs here, for a faster start.",
    ),
]
CudaGraphs = Annotated[
    bool,
    typer.Option(
        "--cuda-graphs",
        rich_help_panel=ENGINE,
        help="Replay encoder and enhancer as CUDA graphs.",
    ),
]


@dataclass(frozen=True)
class EngineChoice:
    """Options of a command line, see `option_groups`."""

    backend: Annotated[
        str,
        typer.Option(
            rich_help_panel=ENGINE,
            help="auto (the fastest that is here and keeps the bundle's gates), onnxruntime, "
            "openvino, or tensorrt (for compiled engines).",
        ),
    ] = "auto"
    device: Device = None
    precision: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ENGINE,
            help="Compute in fp32, bf16 or fp16, whatever the graphs say (openvino).",
        ),
    ] = None
    threads: Threads = None
    streams: Annotated[
        int,
        typer.Option(
            rich_help_panel=ENGINE,
            min=1,
            help="Images on their way at a time: more images an hour, each of them slower.",
        ),
    ] = 1
    cache: Cache = None
    cuda_graphs: CudaGraphs = False

    def options(self) -> EngineOptions:
        """How the engine is to run."""
        from glesam_runtime.backends.base import EngineOptions

        return EngineOptions(
            self.precision, self.threads, self.streams, self.cache, self.cuda_graphs
        )
