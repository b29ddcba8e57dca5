"""Declare the options of glesam-batch, other than those that glesam-run has too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

_PANEL = "Cluster"


class Masks(str, Enum):
    """What is written beside Parquet."""

    RLE = "rle"
    PNG = "png"


@dataclass(frozen=True)
class BatchOptions:
    """Where to work, and on what part of the input."""

    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            rich_help_panel=_PANEL,
            help="Ray cluster to join: auto, HOST:PORT or ray://HOST:PORT. Default: start one on "
            "all cores and GPUs of this machine.",
        ),
    ] = None
    actors: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=_PANEL,
            help="Number of processes that encode, and of those that decode. Default: one per GPU "
            "of the cluster, else one per node.",
        ),
    ] = None
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel=_PANEL,
            help="GPUs of each encoding process and its decoding one together; 0.5 puts two of "
            "each on one GPU. Default: 1 if the cluster has GPUs, else 0.",
        ),
    ] = None
    batch_size: Annotated[
        int,
        typer.Option(
            min=1,
            max=100_000,
            metavar="N",
            rich_help_panel=_PANEL,
            help="Images per chunk. A chunk is one output file, and the unit that is repeated "
            "after a crash. An image of a full-size model takes 12 MiB between the stages.",
        ),
    ] = 32
    memory: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            metavar="GIB",
            rich_help_panel=_PANEL,
            help="Most memory of the object store that images between the stages may take, in GiB. "
            "Default: half of the object store.",
        ),
    ] = None
    shard: Annotated[
        str,
        typer.Option(
            metavar="K/N",
            rich_help_panel=_PANEL,
            help="Work on part K of N only, such as 2/8. All parts share one output folder.",
        ),
    ] = "1/1"
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Take only the first N images of the input."),
    ] = None
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the images that tables, lists and COCO files name. Default: the "
            "folder of that file.",
        ),
    ] = None
    masks: Annotated[
        Masks, typer.Option(help="png also writes each mask to a file in OUT/png.")
    ] = Masks.RLE

    def gib(self) -> int | None:
        """Return --memory in bytes."""
        return None if self.memory is None else int(self.memory * (1 << 30))
