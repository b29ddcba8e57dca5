"""Implement glesam-train: run Algorithm 1 from the command line, and make the built-in nano."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from glesam_export.presets import sam_preset, unet_preset
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import detected, make_checkpoint
from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app
from glesam_runtime.errors import InputError
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.staging import check_folder
from glesam_runtime.verbosity import print_warning
from glesam_training import options
from glesam_training.nano.kinds import Kind
from glesam_training.released_recipe import Stage, as_released

# Imported in the functions that need them: importing torch takes seconds, and neither --help nor a
# wrong option should wait for it.
if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint

app = make_app(
    "Train GleSAM's enhancer and decoder (Algorithm 1), or the built-in nano.", commands=True
)


@app.command("enhancer")
@expand_groups
def enhancer(
    data: options.DataOptions,
    output: options.Output,
    weights: WeightOptions,
    training: options.TrainingOptions,
    adapters: options.AdapterOptions,
    context: typer.Context,
    mask_loss: Annotated[
        float,
        typer.Option(
            min=0,
            rich_help_panel=options.TRAINING,
            help="Weight of an additional Dice + Focal loss of the frozen decoder's masks; the "
            "paper uses 0.",
        ),
    ] = 0.0,
) -> None:
    """Stage 1: train the enhancer's LoRA to turn a degraded image's latent into the clear one's."""
    is_given = _is_given(context)
    adapters.check(weights, rank_is_given=is_given("rank"))
    # What is wrong with an option comes before what it goes with.
    is_default = training.weights_of_losses() == options.TrainingOptions().weights_of_losses()
    if not math.isfinite(mask_loss):
        raise InputError(f"--mask-loss {mask_loss:g}: must be a finite number")
    if is_given("loss_weights") and not is_default and not mask_loss:
        print_warning(
            f"--loss-weights {training.loss_weights}: has no effect without --mask-loss, because "
            "stage 1 then has no mask loss"
        )
    weights, training, adapters = as_released(
        "enhancer", weights, training, adapters, is_given=is_given
    )
    losses = training.weights_of_losses()
    examples, settings = training.examples(), training.settings()
    _refuse_to_overwrite(weights, output, "enhancer")
    checkpoint = _checkpoint_to_start_from(weights, output, adapters, training.seed)
    dataset = data.open()
    from accelerate import PartialState

    from glesam_training.progress_display import progress_display
    from glesam_training.train import named_job, train_enhancer
    from glesam_training.trained_checkpoint import write_checkpoint

    latents = training.keep_latents
    with progress_display() as show:
        trained = train_enhancer(
            checkpoint,
            named_job(
                *("enhancer", dataset, settings, examples, output, latents, show),
                loss_weights=losses,
            ),
            mask_loss,
            lambda part: write_checkpoint(checkpoint, output, enhancer=part),
        )
    if PartialState().is_main_process:
        typer.echo(f"wrote {write_checkpoint(checkpoint, output, enhancer=trained)}")


@app.command("decoder")
@expand_groups
def decoder(
    data: options.DataOptions,
    output: options.Output,
    weights: WeightOptions,
    training: options.DecoderTrainingOptions,
    context: typer.Context,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Train the mask tokens only (FT-T).")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Train the whole decoder except the IoU head (FT-D).")
    ] = False,
    no_enhance: Annotated[
        bool,
        typer.Option(
            "--no-enhance",
            help="Train on latents that the enhancer has not changed: the control experiment.",
        ),
    ] = False,
) -> None:
    """Stage 2: train the decoder to read enhanced latents."""
    if tokens == everything:
        raise InputError("pass one of --tokens (FT-T) and --all (FT-D)")
    weights, training, _ = as_released(
        "decoder", weights, training, options.AdapterOptions(), is_given=_is_given(context)
    )
    losses = training.weights_of_losses()
    examples, settings = training.examples(), training.settings()
    _refuse_to_overwrite(weights, output, "decoder")
    checkpoint = make_checkpoint(weights, print_warning)
    dataset = data.open()
    from accelerate import PartialState

    from glesam_training.progress_display import progress_display
    from glesam_training.train import named_job, train_decoder
    from glesam_training.trained_checkpoint import write_checkpoint

    latents = training.keep_latents
    with progress_display() as show:
        trained = train_decoder(
            checkpoint,
            named_job(
                *("decoder", dataset, settings, examples, output, latents, show),
                loss_weights=losses,
            ),
            "tokens" if tokens else "all",
            enhance=not no_enhance,
            saved=lambda part: write_checkpoint(checkpoint, output, decoder=part),
        )
    if PartialState().is_main_process:
        typer.echo(f"wrote {write_checkpoint(checkpoint, output, decoder=trained)}")


@app.command("nano")
@expand_groups
def nano(given: options.NanoOptions) -> None:
    """Train the built-in nano from scratch and measure it on pictures that it never saw."""
    from glesam_export.checkpoints.formats import open_checkpoint
    from glesam_runtime.staging import staged_file
    from glesam_training.nano import held_out_report
    from glesam_training.nano.recipe import RECIPES
    from glesam_training.nano.steps import make_nano
    from glesam_training.progress_display import progress_display

    with progress_display() as show:
        packed = make_nano(given.output, RECIPES[given.preset, given.quick], given.seed, show)
        scenes = 8 if given.quick else held_out_report.SCENES
        checkpoint = open_checkpoint(packed)
        results = held_out_report.measure_nano(
            checkpoint, scenes, lambda done, total: show("measured", done, total, {})
        )
    errors = held_out_report.latent_errors(checkpoint, held_out_report.held_out(scenes))
    text = held_out_report.report_markdown(results, errors)
    with staged_file(given.output / "report.md") as partial:
        partial.write_text(text, encoding="utf-8")
    typer.echo(text)
    typer.echo(f"wrote {packed}")


@app.command("nano-table")
@expand_groups
def nano_table(
    given: options.NanoOptions,
    seeds: Annotated[int, typer.Option(min=2, help="Number of seeds of Algorithm 1.")] = 3,
    scenes: Annotated[int, typer.Option(min=1, help="Number of held-out scenes.")] = 100,
) -> None:
    """Train and measure the paper's Table 5 at nano's size, over several seeds of Algorithm 1."""
    from glesam_evaluation.conditions import WITH_VISIBILITY
    from glesam_evaluation.protocol import EvaluationPlan
    from glesam_runtime.staging import staged_file
    from glesam_training.nano import ablation_table
    from glesam_training.nano.held_out_report import held_out
    from glesam_training.nano.recipe import table_recipe
    from glesam_training.progress_display import progress_display

    recipe, found = table_recipe(given.preset, given.quick), []
    with progress_display() as show:
        for each in range(seeds):
            methods = ablation_table.train_methods(given.output, recipe, given.seed, each, show)
            name, data = f"scenes:{scenes}", held_out(scenes)
            plan = EvaluationPlan(conditions=WITH_VISIBILITY)
            found.append(ablation_table.evaluate_methods(methods, data, name, each, plan))
    text = ablation_table.table_markdown(found)
    with staged_file(given.output / "table.md") as partial:
        partial.write_text(text, encoding="utf-8")
    typer.echo(text)


@app.command("ablate")
@expand_groups
def ablate(
    kind: Annotated[
        Kind,
        typer.Argument(
            metavar="KIND",
            help="gamma (the paper's Fig. 6), rank (Tables 8 and 9), levels, parts (Tables 4 and "
            "6: without CRE, without FDA), recipe (of the degradations: paper, released), or input "
            "(sam, released).",
        ),
    ],
    given: options.NanoOptions,
    values: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated values; levels of one value are joined by +, such as 1,1+2. "
            "Default: five gammas around nano's, ranks 4, 8 and 16, four sets of levels."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds of Algorithm 1.")] = 1,
    scenes: Annotated[
        int, typer.Option(min=1, help="Number of held-out scenes; for input, of each shape.")
    ] = 50,
) -> None:
    """Train stage 1 on nano with one thing varied, and compare cost and IoU."""
    from glesam_evaluation.plot import require_matplotlib
    from glesam_runtime.staging import staged_file
    from glesam_training.nano import ablation, ablation_report
    from glesam_training.nano.recipe import ablation_recipe
    from glesam_training.nano.variants import variants_of
    from glesam_training.progress_display import progress_display

    base = make_checkpoint(WeightOptions(given.preset))
    variants = variants_of(kind, values, base.gamma)
    for each in variants:  # an input that a SAM does not have is refused before any training
        ablation.prepared(base, each.input)
    require_matplotlib()
    check_folder(given.output)
    recipe, found = ablation_recipe(given.preset, given.quick), []
    given.output.mkdir(parents=True, exist_ok=True)
    with progress_display() as show:
        for seed in range(given.seed, given.seed + seeds):
            trained = {
                each.name: ablation.train_variant(base, each, recipe, given.output, seed, show)
                for each in variants
            }
            found.append(ablation_report.measure_variants(base, trained, kind, scenes))
    text = ablation_report.ablation_markdown(found)
    table, picture = given.output / f"{kind}.md", given.output / f"{kind}.png"
    with staged_file(table) as partial, staged_file(picture) as drawn:
        partial.write_text(text, encoding="utf-8")
        ablation_report.draw_ablation(kind, found, drawn)
    typer.echo(text)
    typer.echo(f"wrote {table} and {picture}")


def main() -> NoReturn:
    """Run the glesam-train command."""
    run_app(app, "glesam-train")


def _is_given(context: typer.Context) -> Callable[[str], bool]:
    """Return whether the user gave the option of a name."""

    def is_given(name: str) -> bool:
        source = context.get_parameter_source(name)
        return source is not None and source.name != "DEFAULT"

    return is_given


def _refuse_to_overwrite(given: WeightOptions, folder: Path, stage: Stage) -> None:
    """Refuse a file, and an output folder whose files the training starts from.

    Every saved state would replace them, and the training could not be resumed.

    Raises:
        InputError: names the option and the folder.
    """
    check_folder(folder)
    if not folder.is_dir():
        return
    from glesam_training.trained_checkpoint import LORA_FILE, PACKED_FILE, SAM_FILES

    whole = given.checkpoint
    packed = folder if whole and whole.is_dir() else folder / PACKED_FILE
    written = [("--checkpoint", whole, packed)]
    if stage == "enhancer":
        written.append(("--lora", given.lora_file, folder / LORA_FILE))
    else:
        written += [("--sam", given.sam, folder / name) for name in SAM_FILES]
    for option, path, result in written:
        if path is not None and path.exists() and result.exists() and path.samefile(result):
            raise InputError(
                f"-o {folder}: training would overwrite {option} {path}, which it starts from; "
                "pass another folder"
            )


def _checkpoint_to_start_from(
    given: WeightOptions, folder: Path, adapters: options.AdapterOptions, seed: int
) -> Checkpoint:
    """Return the checkpoint that stage 1 starts from; its LoRA is new unless one is given."""
    built_in = given.preset is not None and sam_preset(given.preset).builtin is not None
    complete = given.checkpoint or given.lora_file or given.random_weights is not None
    if complete or (built_in and not given.given_files):
        return make_checkpoint(given, print_warning)
    if not given.given_files:
        raise InputError(
            "no weights: pass --sam FILE --sd FOLDER --gamma G --timestep T, or --checkpoint PATH"
        )
    from glesam_export.checkpoints.write import save_tensors
    from glesam_training.train import new_adapters
    from glesam_training.trained_checkpoint import START_FILE

    if given.sam is None or given.sd is None:
        raise InputError("to start with a new LoRA, pass both --sam FILE and --sd FOLDER")
    known = detected(given)
    assert known.unet is not None, "`detected` reads the U-Net from --sd"
    unet = unet_preset(known.unet)
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / START_FILE
    new = new_adapters(unet, adapters.rank, seed, alpha=adapters.alpha)
    save_tensors(start, new)
    return make_checkpoint(replace(known, lora=[start]), print_warning)
