"""The options of glesam-bench: what they are called, and what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glesam_runtime.backends import BACKENDS
from glesam_runtime.engine_options import DEVICE, PANEL, EngineOptions, RequestedEngine
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
class Engines(EngineOptions):
    """Which engines run the bundle, and how: like `RequestedEngine`, but for several engines.

    `precision` applies to the engines that name none.
    """

    streams: int = field(default=1, init=False)  # no option: one stream is measured
    backend: Annotated[
        list[str] | None,
        typer.Option(
            rich_help_panel=PANEL,
            metavar="NAME[:PRECISION]",
            help=f"auto, {', '.join(BACKENDS)}; repeatable. 'openvino:bf16' computes in bf16. "
            "Default: every installed engine that runs the bundle.",
        ),
    ] = None
    device: str | None = field(default=None, metadata=DEVICE)

    @property
    def common(self) -> RequestedEngine:
        """Return the options that all engines share."""
        names = {each.name for each in fields(RequestedEngine)} - {"backend"}
        return RequestedEngine(**{name: getattr(self, name) for name in names})


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
