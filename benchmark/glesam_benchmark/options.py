"""Declare the options of glesam-bench, and check them before minutes of measuring."""

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
    str,
    typer.Argument(
        metavar="[BUNDLE]",
        help="A bundle folder, 'nano' for the built-in bundle, or a Hugging Face repository "
        "ORG/NAME[@REVISION].",
    ),
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


@dataclass(frozen=True)
class Engines(EngineOptions):
    """The engines that run the bundle, and their options: a `RequestedEngine` for several engines.

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
