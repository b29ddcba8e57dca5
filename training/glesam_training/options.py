"""What both stages of Algorithm 1 are asked on the command line, and what it adds up to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glesam_runtime.errors import InputError

# Imported where used: torch takes seconds, and --help and wrong options should not.
if TYPE_CHECKING:
    from glesam_evaluation.datasets import Dataset
    from glesam_training.examples import ExampleOptions
    from glesam_training.plan import Plan

TRAINING = "Training"
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of images and masks, a COCO or LVIS JSON, or scenes:N, scenes:N@FIRST.",
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder for checkpoint, state and logs. Given again, training goes on from there.",
    ),
]
ImagesOf = Annotated[
    Path | None, typer.Option("--images", metavar="DIR", help="The images of a COCO or LVIS JSON.")
]
Iterations = Annotated[int, typer.Option(min=1, rich_help_panel=TRAINING, help="Optimizer steps.")]
Batch = Annotated[
    int, typer.Option(min=1, rich_help_panel=TRAINING, help="Images a step, on all devices.")
]
Lr = Annotated[float, typer.Option(rich_help_panel=TRAINING, help="Learning rate of AdamW.")]
Masks = Annotated[
    int, typer.Option(min=1, rich_help_panel=TRAINING, help="Masks an image, drawn each time.")
]
Levels = Annotated[
    str,
    typer.Option(
        rich_help_panel=TRAINING, help="LQSeg levels of the low images; 0 is the clear image."
    ),
]
Latents = Annotated[
    Path | None,
    typer.Option(
        "--keep-latents",
        metavar="DIR",
        rich_help_panel=TRAINING,
        help="Encode each image once, with one low version a level, and keep the latents here.",
    ),
]
MixedPrecision = Annotated[
    str,
    typer.Option(
        rich_help_panel=TRAINING,
        help="no, fp16, bf16, or auto: bf16 where the hardware has it. Weights stay float32.",
    ),
]
SaveEvery = Annotated[
    int, typer.Option(min=1, rich_help_panel=TRAINING, help="Steps between two checkpoints.")
]
Workers = Annotated[
    int, typer.Option(min=0, rich_help_panel=TRAINING, help="Processes that prepare images.")
]
Seed = Annotated[int, typer.Option(min=0, rich_help_panel=TRAINING, help="Of all that is drawn.")]


def dataset_of(data: str, images: Path | None) -> Dataset:
    """The pictures with masks that DATA names."""
    from glesam_evaluation.datasets import open_dataset

    return open_dataset(data, images)


def examples_of(levels: str, masks: int, seed: int, latents: Path | None) -> ExampleOptions:
    """What examples are made of."""
    from glesam_training.examples import ExampleOptions

    words = [word.strip() for word in levels.split(",")]
    if not all(word in ("0", "1", "2", "3") for word in words):
        raise InputError(f"--levels {levels}: a comma list of 1, 2, 3 (LQ-1..3) and 0 (clear)")
    chosen = tuple(int(word) for word in words)
    variants = len(chosen) if latents else None
    return ExampleOptions(seed=seed, masks=masks, levels=chosen, variants=variants)


def plan_of(
    iterations: int,
    batch: int,
    lr: float,
    save_every: int,
    workers: int,
    mixed_precision: str,
    seed: int,
) -> Plan:
    """How long and how fast."""
    from glesam_training.mixed_precision import CHOICES
    from glesam_training.plan import Plan

    if not (math.isfinite(lr) and lr > 0):
        raise InputError(f"--lr {lr:g}: must be a positive number")
    if mixed_precision not in CHOICES:
        words = ", ".join(CHOICES[:-1]) + f" or {CHOICES[-1]}"
        raise InputError(f"--mixed-precision {mixed_precision}: choose {words}")
    return Plan(
        iterations=iterations,
        batch=batch,
        lr=lr,
        save_every=save_every,
        workers=workers,
        mixed_precision=mixed_precision,
        seed=seed,
    )
