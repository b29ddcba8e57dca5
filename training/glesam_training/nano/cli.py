"""glesam-train nano and nano-table: how the built-in model is made and what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glesam_export.cli import Debug

Folder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder of every step's result. Given again, what is there is not made again.",
    ),
]


def nano(
    output: Folder,
    quick: Annotated[
        bool, typer.Option("--quick", help="The same steps in minutes; of no use but to test.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    debug: Debug = False,
) -> None:
    """Make the built-in nano from nothing, and measure it on pictures it never saw."""
    from glesam_export.checkpoints.formats import open_checkpoint
    from glesam_runtime.staging import staged_file
    from glesam_training.nano import report
    from glesam_training.nano.recipe import FULL, QUICK
    from glesam_training.nano.steps import make_nano
    from glesam_training.progress import narrated

    with narrated() as narrate:
        packed = make_nano(output, QUICK if quick else FULL, seed, narrate)
        scenes = 8 if quick else report.SCENES
        checkpoint = open_checkpoint(packed)
        results = report.measure(
            checkpoint, scenes, lambda done, total: narrate("measured", done, total, {})
        )
    errors = report.latent_errors(checkpoint, report.held_out(scenes))
    text = report.markdown(results, errors)
    with staged_file(output / "report.md") as partial:
        partial.write_text(text, encoding="utf-8")
    typer.echo(text)
    typer.echo(f"wrote {packed}")


def nano_table(
    output: Folder,
    seeds: Annotated[int, typer.Option(min=2, help="Seeds of Algorithm 1.")] = 3,
    scenes: Annotated[int, typer.Option(min=1, help="Held-out scenes.")] = 100,
    quick: Annotated[bool, typer.Option("--quick", help="With nano --quick.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is drawn.")] = 0,
    debug: Debug = False,
) -> None:
    """The paper's Table 5 at nano's size, over several seeds of Algorithm 1."""
    from glesam_evaluation.protocol import Plan
    from glesam_runtime.staging import staged_file
    from glesam_training.nano import report, table
    from glesam_training.nano.recipe import QUICK, TABLE
    from glesam_training.progress import narrated

    found = []
    with narrated() as narrate:
        for each in range(seeds):
            recipe = QUICK if quick else TABLE
            methods = table.train_methods(output, recipe, seed, each, narrate)
            data = report.held_out(scenes)
            found.append(table.measure(methods, data, f"scenes:{scenes}", each, Plan()))
    text = table.summary(found)
    with staged_file(output / "table.md") as partial:
        partial.write_text(text, encoding="utf-8")
    typer.echo(text)
