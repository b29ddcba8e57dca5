"""Declare each option of the training commands once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glesam_runtime.errors import InputError
from glesam_training.nano.kinds import NanoName

# Imported in the functions that need them: importing torch takes seconds, and neither --help nor a
# wrong option should wait for it.
if TYPE_CHECKING:
    from glesam_evaluation.datasets import Dataset
    from glesam_export.weight_options import WeightOptions
    from glesam_training.examples import ExampleOptions
    from glesam_training.objectives import LossWeights
    from glesam_training.settings import TrainingSettings

TRAINING = "Training"
"""Heading of the training options in --help."""

"""`glesam_runtime.console` looks for this flag among the arguments; commands only declare it."""

Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder for the checkpoint, the saved state and the logs. If it already holds a "
        "state, training resumes from there.",
    ),
]
Iterations = Annotated[int, typer.Option(min=1, rich_help_panel=TRAINING, help="Optimizer steps.")]


@dataclass(frozen=True)
class DataOptions:
    """The pictures with masks that a command reads."""

    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of images and masks, a COCO or LVIS JSON file, a published dataset "
            "(NAME:FOLDER, such as ecssd:ECSSD), or scenes:N or scenes:N@FIRST for N procedural "
            "scenes.",
        ),
    ]
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the images that a COCO or LVIS JSON file names. Default: searched for "
            "near the file.",
        ),
    ] = None

    def open(self) -> Dataset:
        """Open the dataset.

        Raises:
            InputError: the data cannot be read.
        """
        from glesam_evaluation.datasets import open_dataset

        return open_dataset(self.data, self.images)


@dataclass(frozen=True)
class TrainingOptions:
    """The length and the data of stage 1; `DecoderTrainingOptions` has stage 2's defaults."""

    iterations: Iterations = 100_000
    batch: Annotated[
        int,
        typer.Option(min=1, rich_help_panel=TRAINING, help="Images per step, over all devices."),
    ] = 4
    lr: Annotated[float, typer.Option(rich_help_panel=TRAINING, help="Learning rate of AdamW.")] = (
        1e-4
    )
    warmup: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel=TRAINING,
            help="Steps over which the learning rate rises from zero.",
        ),
    ] = 0
    loss_weights: Annotated[
        str,
        typer.Option(
            metavar="DICE:FOCAL",
            rich_help_panel=TRAINING,
            help="Weights of Dice and the focal loss in the mask loss. The default is SAM's; the "
            "released code has 1:1.",
        ),
    ] = "1:20"
    masks: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel=TRAINING, help="Masks per image, drawn again for every example."
        ),
    ] = 4
    levels: Annotated[
        str,
        typer.Option(
            rich_help_panel=TRAINING,
            help="Comma-separated degradation levels: 1, 2 and 3 are LQ-1 to LQ-3, 0 is the clear "
            "image, drawn draws the down-sampling rate as the released recipes do.",
        ),
    ] = "1,2,3"
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            rich_help_panel=TRAINING,
            help="Recipe of the degradations: paper, released (the authors' training code; use it "
            "with --levels drawn) or released-test.",
        ),
    ] = "paper"
    keep_latents: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=TRAINING,
            help="Encode each image once, with one degraded version per level, and store the "
            "latents in this folder. Default: encode every example.",
        ),
    ] = None
    mixed_precision: Annotated[
        str,
        typer.Option(
            rich_help_panel=TRAINING,
            help="no, fp16, bf16, or auto (bf16 if the device is faster with it). Weights stay "
            "float32.",
        ),
    ] = "no"
    save_every: Annotated[
        int, typer.Option(min=1, rich_help_panel=TRAINING, help="Steps between two checkpoints.")
    ] = 500
    workers: Annotated[
        int,
        typer.Option(min=0, rich_help_panel=TRAINING, help="Worker processes that prepare images."),
    ] = 1
    seed: Annotated[
        int,
        typer.Option(min=0, rich_help_panel=TRAINING, help="Random seed."),
    ] = 0
    as_released: Annotated[
        bool,
        typer.Option(
            "--as-released",
            rich_help_panel=TRAINING,
            help="Train as the released GleSAM code does: sets degradations, input, timestep, "
            "batch, warm-up, rank, alpha and loss weights, and prints them. Options that are given "
            "win.",
        ),
    ] = False

    def weights_of_losses(self) -> LossWeights:
        """Return the weights of the mask loss.

        Raises:
            InputError: `--loss-weights` is not two numbers of which one is positive.
        """
        from glesam_training.objectives import FOCAL_ALPHA, LossWeights

        try:
            dice, focal = (float(word) for word in self.loss_weights.split(":"))
        except ValueError:
            dice = focal = math.nan
        if not (math.isfinite(dice + focal) and min(dice, focal) >= 0 and dice + focal > 0):
            raise InputError(
                f"--loss-weights {self.loss_weights}: pass the weights of Dice and the focal loss "
                "as DICE:FOCAL, such as 1:20; none is negative, and one is positive"
            )
        # The released focal loss weighs every pixel alike, with its alpha.
        return LossWeights(dice, focal, FOCAL_ALPHA if self.as_released else None)

    def examples(self) -> ExampleOptions:
        """Return what the training examples are made of.

        Raises:
            InputError: `--levels` names an unknown level, or `--recipe` an unknown recipe.
        """
        from glesam_evaluation.degrade import recipe_settings
        from glesam_training.examples import DRAWN, ExampleOptions

        words = [word.strip() for word in self.levels.split(",")]
        known = {"0": 0, "1": 1, "2": 2, "3": 3, "drawn": DRAWN}
        if not all(word in known for word in words):
            raise InputError(
                f"--levels {self.levels}: pass a comma list of 1, 2, 3 (LQ-1..3), 0 (clear) and "
                "drawn"
            )
        recipe_settings(self.recipe)
        if self.recipe == "paper" and "drawn" in words:
            raise InputError(
                f"--levels {self.levels}: the paper's recipe draws no rate; pass --recipe released "
                "or other --levels"
            )
        chosen = tuple(known[word] for word in words)
        variants = len(chosen) if self.keep_latents else None
        return ExampleOptions(
            seed=self.seed,
            masks=self.masks,
            levels=chosen,
            variants=variants,
            recipe=self.recipe,
        )

    def settings(self) -> TrainingSettings:
        """Return the settings of the training loop.

        Raises:
            InputError: `--lr` is not positive, or `--mixed-precision` is unknown.
        """
        from glesam_training.settings import MIXED_PRECISIONS, TrainingSettings

        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"--lr {self.lr:g}: must be a positive number")
        if self.mixed_precision not in MIXED_PRECISIONS:
            words = ", ".join(MIXED_PRECISIONS[:-1]) + f" or {MIXED_PRECISIONS[-1]}"
            raise InputError(f"--mixed-precision {self.mixed_precision}: choose {words}")
        return TrainingSettings(
            iterations=self.iterations,
            batch=self.batch,
            lr=self.lr,
            warmup=self.warmup,
            save_every=self.save_every,
            workers=self.workers,
            mixed_precision=self.mixed_precision,
            seed=self.seed,
        )


@dataclass(frozen=True)
class AdapterOptions:
    """The size of the new LoRA that stage 1 starts with if none is given."""

    rank: Annotated[
        int,
        typer.Option(
            min=1,
            rich_help_panel=TRAINING,
            help="Rank of the new LoRA that training starts with if --lora is not given.",
        ),
    ] = 8
    alpha: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=TRAINING,
            help="Alpha of the new LoRA. Its effect is multiplied by alpha / rank. Default: the "
            "rank.",
        ),
    ] = None

    def check(self, weights: WeightOptions, *, rank_is_given: bool) -> None:
        """Check `--rank` and `--alpha`.

        Raises:
            InputError: alpha is not positive, or the LoRA is not new.
        """
        if rank_is_given and not self.are_new(weights):
            raise InputError(
                f"--rank {self.rank}: goes with a new LoRA; training continues from a given one, "
                "which has its own rank"
            )
        if self.alpha is None:
            return
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InputError(f"--alpha {self.alpha:g}: must be a positive number")
        if not self.are_new(weights):
            raise InputError(
                f"--alpha {self.alpha:g}: goes with a new LoRA; training continues from a given "
                "one, which has its own alpha"
            )

    def are_new(self, weights: WeightOptions) -> bool:
        """Return whether stage 1 makes a new LoRA: files are given, and none of a LoRA."""
        whole = weights.checkpoint or weights.lora or weights.random_weights is not None
        return bool(weights.given_files) and not whole


@dataclass(frozen=True)
class DecoderTrainingOptions(TrainingOptions):
    """The training options of stage 2."""

    iterations: Iterations = 20_000


@dataclass(frozen=True)
class NanoOptions:
    """The options that `glesam-train nano`, `nano-table` and `ablate` share."""

    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for the result of every step. A step whose result is already there is "
            "skipped.",
        ),
    ]
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Run the same steps at a small size, in minutes. The result is only good for "
            "tests.",
        ),
    ] = False
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0
    preset: Annotated[
        NanoName,
        typer.Option(
            help="nano is a SAM, nano2 a SAM 2 that starts from nano (with --quick, from scratch)."
        ),
    ] = "nano"
