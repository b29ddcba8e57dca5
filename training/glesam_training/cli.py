"""glesam-train: Algorithm 1 from the command line, and the built-in nano."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from glesam_export import cli as export_cli
from glesam_export.presets import sam_preset, unet_preset
from glesam_export.weight_options import TrainedWeights, WeightOptions
from glesam_export.weights import detected, make_checkpoint
from glesam_runtime.console import make_app, run_app
from glesam_runtime.errors import InputError
from glesam_runtime.option_groups import expand_groups
from glesam_training import options as asked
from glesam_training.nano import cli as nano_cli

# Imported where used: torch takes seconds, and --help and wrong options should not.
if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint

app = make_app("Train GleSAM's enhancer and decoder (Algorithm 1), or the built-in nano.")


@app.command("enhancer")
@expand_groups
def enhancer(
    data: asked.Data,
    output: asked.Output,
    given: TrainedWeights,
    images: asked.ImagesOf = None,
    rank: Annotated[
        int,
        typer.Option(min=1, rich_help_panel=asked.TRAINING, help="Of a new LoRA; alpha = rank."),
    ] = 8,
    iterations: asked.Iterations = 100_000,
    batch: asked.Batch = 4,
    lr: asked.Lr = 1e-4,
    mask_loss: Annotated[
        float,
        typer.Option(
            min=0,
            rich_help_panel=asked.TRAINING,
            help="Weight of the mask loss through the frozen decoder; 0 is the paper's stage 1.",
        ),
    ] = 0.0,
    masks: asked.Masks = 4,
    levels: asked.Levels = "1,2,3",
    keep_latents: asked.Latents = None,
    mixed_precision: asked.MixedPrecision = "no",
    save_every: asked.SaveEvery = 500,
    workers: asked.Workers = 1,
    seed: asked.Seed = 0,
    debug: export_cli.Debug = False,
) -> None:
    """Stage 1: train the enhancer's LoRA, so that a low image's latent becomes the clear one's.

    With --lora, training continues that LoRA. Without it, a new LoRA is trained.
    """
    checkpoint = _checkpoint_to_begin(WeightOptions(**vars(given)), output, rank, seed)
    examples = asked.examples_of(levels, masks, seed, keep_latents)
    plan = asked.plan_of(iterations, batch, lr, save_every, workers, mixed_precision, seed)
    dataset = asked.dataset_of(data, images)
    from glesam_training.progress import narrated
    from glesam_training.train import job, train_enhancer
    from glesam_training.trained import write_checkpoint

    with narrated() as narrate:
        trained = train_enhancer(
            checkpoint,
            job("enhancer", dataset, plan, examples, output, keep_latents, narrate),
            mask_loss,
            lambda part: write_checkpoint(checkpoint, output, enhancer=part),
        )
    typer.echo(f"wrote {write_checkpoint(checkpoint, output, enhancer=trained)}")


@app.command("decoder")
@expand_groups
def decoder(
    data: asked.Data,
    output: asked.Output,
    given: TrainedWeights,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Train the mask tokens only (FT-T).")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Train all but the IoU head (FT-D).")
    ] = False,
    no_enhance: Annotated[
        bool, typer.Option("--no-enhance", help="Train on latents as they are: the control.")
    ] = False,
    images: asked.ImagesOf = None,
    iterations: asked.Iterations = 20_000,
    batch: asked.Batch = 4,
    lr: asked.Lr = 1e-4,
    masks: asked.Masks = 4,
    levels: asked.Levels = "1,2,3",
    keep_latents: asked.Latents = None,
    mixed_precision: asked.MixedPrecision = "no",
    save_every: asked.SaveEvery = 500,
    workers: asked.Workers = 1,
    seed: asked.Seed = 0,
    debug: export_cli.Debug = False,
) -> None:
    """Stage 2: train the decoder to read enhanced latents."""
    if tokens == everything:
        raise InputError("pass one of --tokens (FT-T) and --all (FT-D)")
    checkpoint = make_checkpoint(WeightOptions(**vars(given)))
    examples = asked.examples_of(levels, masks, seed, keep_latents)
    plan = asked.plan_of(iterations, batch, lr, save_every, workers, mixed_precision, seed)
    dataset = asked.dataset_of(data, images)
    from glesam_training.progress import narrated
    from glesam_training.train import job, train_decoder
    from glesam_training.trained import write_checkpoint

    with narrated() as narrate:
        trained = train_decoder(
            checkpoint,
            job("decoder", dataset, plan, examples, output, keep_latents, narrate),
            "tokens" if tokens else "all",
            enhance=not no_enhance,
            saved=lambda part: write_checkpoint(checkpoint, output, decoder=part),
        )
    typer.echo(f"wrote {write_checkpoint(checkpoint, output, decoder=trained)}")


app.command("nano")(nano_cli.nano)
app.command("nano-table")(nano_cli.nano_table)


def main() -> NoReturn:
    """The glesam-train command."""
    run_app(app, "glesam-train")


def _checkpoint_to_begin(options: WeightOptions, folder: Path, rank: int, seed: int) -> Checkpoint:
    """The checkpoint that stage 1 begins with; its LoRA is new unless one is given."""
    built_in = options.preset is not None and sam_preset(options.preset).builtin is not None
    if options.checkpoint or options.lora or (built_in and not options.given_files):
        return make_checkpoint(options)
    if not options.given_files:
        raise InputError(
            "no weights: pass --sam FILE --sd FOLDER --gamma G --timestep T, or --checkpoint PATH"
        )
    from glesam_export.checkpoints.write import save_tensors
    from glesam_training.train import new_adapters

    if options.sam is None or options.sd is None:
        raise InputError("--sam FILE and --sd FOLDER must both be given to begin with a new LoRA")
    known = detected(options)
    assert known.unet is not None, "the base says"
    unet = unet_preset(known.unet)
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / "start.safetensors"
    save_tensors(start, new_adapters(unet, rank, seed))
    return make_checkpoint(replace(known, lora=start))
