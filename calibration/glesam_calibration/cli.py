"""Implement the command glesam-calibrate: quantize a float bundle, report, learn a gate."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from glesam_calibration import options
from glesam_runtime.common_options import WithDefault, make_app
from glesam_runtime.console import run_app
from glesam_runtime.errors import InputError
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.verbosity import print_note, print_progress

# Imported where used, so that `--help` and wrong options need none of these modules.
if TYPE_CHECKING:
    from glesam_calibration.calibrator import Talk

_DEFAULT = "quantize"


class _Commands(WithDefault):
    """Makes `glesam-calibrate BUNDLE ...` the same as `glesam-calibrate quantize BUNDLE ...`."""

    default = _DEFAULT


app = make_app(
    "Quantize a float bundle to INT8 or FP8, and report what it costs.",
    commands=True,
    group=_Commands,
    no_args_is_help=True,
)


def main() -> NoReturn:
    """Run the glesam-calibrate command."""
    run_app(app, "glesam-calibrate")


@app.command(_DEFAULT)
@expand_groups
def quantize(
    bundle: options.BundlePath,
    given: options.ImageOptions,
    how: options.RecipeOptions,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Bundle folder to write.")
    ],
    smooth: options.Smooth = None,
    attention: options.Attention = False,
    keep_float: Annotated[
        list[str] | None,
        typer.Option("--float", metavar="STAGE:LAYER", help="Keep a layer in float; repeatable."),
    ] = None,
    target_iou: Annotated[
        float | None,
        typer.Option(
            metavar="IOU",
            help="Keep the fewest layers in float that reach this mean IoU with the float bundle.",
        ),
    ] = None,
    ranking: Annotated[
        Path | None,
        typer.Option(
            "--sensitivity",
            metavar="FILE",
            help="sensitivity.json from 'glesam-calibrate sensitivity', for --target-iou. Default: "
            "measure the ranking.",
        ),
    ] = None,
    by: options.By = "layer",
    evaluate_images: options.JudgeImages = 4,
    resume: options.Resume = False,
    allow_parity_failure: Annotated[
        bool,
        typer.Option(
            "--allow-parity-failure",
            help="Write the bundle even if it fails its accuracy limits.",
        ),
    ] = False,
) -> None:
    """Quantize BUNDLE. This is the default command, so its name can be left out.

    Statistics are collected on IMAGES, clear and at LQ-1 to LQ-3. The default is procedural images.
    """
    recipe = how.recipe(smooth, keep_float or (), attention)
    unit = options.unit_of(by)
    if target_iou is not None and not 0 < target_iou <= 1:
        raise InputError(f"--target-iou {target_iou:g}: must be above 0 and at most 1")
    if ranking is not None and target_iou is None:
        raise InputError("--sensitivity requires --target-iou")
    options.require_calibration()
    from glesam_calibration import bundle_comparison, calibrator, sensitivity

    target = None
    if target_iou is not None:
        known = None if ranking is None else sensitivity.read_ranking(ranking)
        target = calibrator.Target(target_iou, unit, known)
    opened = options.open_float(bundle)
    data = given.data(evaluate_images)
    with _resume_hint(output):
        manifest, measured = calibrator.calibrate(
            opened,
            output,
            data,
            recipe,
            _talk(),
            target=target,
            resume=resume,
            allow_parity_failure=allow_parity_failure,
        )
    print(bundle_comparison.stage_table(measured.images))
    print(bundle_comparison.summary(opened.manifest, manifest, measured))
    assert manifest.calibration is not None, "just calibrated"
    for stage, names in manifest.calibration.float_layers.items():
        print(f"float in the {stage}: {', '.join(names)}")
    if recipe.attention:
        print(f"attention in float8: {', '.join(recipe.attention_stages)}")
    print(f"wrote {output}")


@app.command("sensitivity")
@expand_groups
def rank(
    bundle: options.BundlePath,
    given: options.ImageOptions,
    how: options.RecipeOptions,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for sensitivity.json and sensitivity.png."
        ),
    ],
    by: options.By = "layer",
    evaluate_images: options.JudgeImages = 2,
    resume: options.Resume = False,
) -> None:
    """Rank layers by the mask IoU that is lost if a layer alone is quantized."""
    recipe = how.recipe()
    unit = options.unit_of(by)
    import msgspec

    from glesam_calibration import calibrator, sensitivity
    from glesam_calibration.yardstick import Yardstick
    from glesam_evaluation.plot import require_matplotlib
    from glesam_runtime.staging import staged_file

    require_matplotlib()
    opened = options.open_float(bundle)
    data = given.data(evaluate_images)
    talk = _talk()
    output.mkdir(parents=True, exist_ok=True)
    with _resume_hint(output):
        _, state, seen = calibrator.take_statistics(
            opened, data, output / ".calibration", resume, talk
        )
        yardstick = Yardstick(opened, calibrator.gate_cases(data))
        ranking = sensitivity.rank(yardstick, seen, recipe, unit, _counter(f"{unit}s"))
    with (
        staged_file(output / "sensitivity.json") as json,
        staged_file(output / "sensitivity.png") as plot,
    ):
        json.write_bytes(msgspec.json.format(msgspec.json.encode(ranking), indent=2) + b"\n")
        sensitivity.draw_ranking(ranking, plot)
    state.remove()
    print(f"{'stage':<10}{unit:<58}{'IoU lost':>10}{'error':>10}")
    for cost in ranking.costs[:20]:
        print(f"{cost.stage:<10}{cost.unit:<58}{cost.iou_lost:>10.5f}{cost.stage_error:>10.5f}")
    print(f"{output}: sensitivity.json, sensitivity.png")


@app.command("report")
def compare_bundles(
    bundle: options.BundlePath,
    quantized: Annotated[
        str, typer.Argument(metavar="QUANTIZED", help="The bundle that was made from it.")
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Images with masks: a folder, a COCO or LVIS JSON file, or scenes:N for N "
            "procedural scenes.",
        ),
    ],
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use only the first N images.")
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="Comma-separated list: 1-point to 10-point, box, noise-box.")
    ] = "3-point,box",
    seed: options.Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for report.md and plot.png."),
    ] = None,
) -> None:
    """Compare both bundles with the ground truth and each other: IoU, Dice, pixel accuracy."""
    options.require_calibration()
    from glesam_calibration import bundle_comparison
    from glesam_calibration.comparison_cases import Cases
    from glesam_calibration.yardstick import compare_in_parts
    from glesam_evaluation.datasets import open_dataset
    from glesam_evaluation.prompting import parse_prompt_kinds
    from glesam_runtime.bundle import open_bundle

    opened, other = options.open_float(bundle), open_bundle(quantized)
    if opened.manifest.model != other.manifest.model:
        raise InputError(f"{quantized}: was not made from {bundle}: it is another model")
    dataset = open_dataset(data)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    cases = Cases(dataset, count, prompts=parse_prompt_kinds(prompts), seed=seed)
    measured = compare_in_parts(opened, other, cases, _counter("images"))
    print(bundle_comparison.report(opened, other, data, seed, measured), end="")
    if output is not None:
        bundle_comparison.write_report(opened, other, data, seed, measured, output)
        print(f"\n{output}: report.md, plot.png")


@app.command("gate")
def learn_gate(
    bundle: options.BundlePath,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="Clear pictures: images with masks (a folder, a COCO or LVIS JSON file, or "
            "scenes:N for N procedural scenes), or a folder of images alone.",
        ),
    ],
    target: Annotated[
        str | None,
        typer.Option(
            help="What to learn. iou: the gain of IoU with the masks of DATA. agreement: the gain "
            "of IoU with the model's masks of the clear picture. latent: how much nearer the "
            "embedding comes to that of the clear picture. Default: iou if DATA has masks, else "
            "agreement."
        ),
    ] = None,
    conditions: Annotated[
        str,
        typer.Option(
            help="Comma-separated list of conditions to learn from: clear, LQ-1 to LQ-3, single "
            "degradations, or unseen for all fifteen of RobustSeg."
        ),
    ] = "clear,LQ-1,LQ-2,LQ-3,unseen,visibility",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use only the first N pictures.")
    ] = None,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write a copy of the bundle with the gate. Default: put the gate into BUNDLE.",
        ),
    ] = None,
) -> None:
    """Learn which images the enhancer of BUNDLE helps, and put this gate into the bundle.

    The pictures are degraded, encoded and enhanced. glesam-run then enhances an image if the gate
    estimates a gain. At least 10 pictures are needed; 100 are better.
    """
    options.require_calibration()
    from glesam_calibration import gate, gate_cases
    from glesam_evaluation.conditions import parse_conditions
    from glesam_evaluation.segmenters import BundleStages

    wanted, kinds = options.gate_target(target), parse_conditions(conditions)
    opened = options.open_float(bundle)
    gate.check_destination(opened, output)
    pictures = gate_cases.open_pictures(
        data, limit, need_masks={None: None, "iou": True}.get(wanted, False)
    )
    gate.check_count(data, pictures.count)
    if wanted is None:
        wanted = "iou" if pictures.have_masks else "agreement"
        print_note(f"learning from the target {wanted}")
    measured = gate_cases.measure_cases(
        BundleStages(opened), pictures, kinds, [wanted], seed, _counter("pictures")
    )[wanted]
    made, outcome = gate.learn_gate(opened, measured, wanted, gate.Source(data, seed))
    place = gate.write_gate(opened, made, output)
    print(gate.table_of(outcome))
    print(
        f"on pictures that a fit has not seen: enhances {100 * outcome.enhanced:.1f} %, loses at "
        f"most {100 * outcome.worst:.3f} points, area under the curve {made.training.area:.3f}"
    )
    print(f"wrote {place}")


def _talk() -> Talk:
    from glesam_calibration.calibrator import Talk

    counters: dict[str, Any] = {}

    def progress(stage: str, done: int, total: int) -> None:
        counters.setdefault(stage, _counter(f"runs of the {stage}"))(done, total)

    return Talk(lambda words: typer.echo(f"warning: {words}", err=True), progress, _step)


def _counter(what: str) -> Any:
    """Return a function that reports progress on stderr, with a line for each tenth."""

    def told(done: int, total: int) -> None:
        if done == total or done * 10 // total > (done - 1) * 10 // total:
            print_progress(f"{done} of {total} {what}")

    return told


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Report on stderr how long a step took."""
    start = time.perf_counter()
    yield
    print_progress(f"{what:<44} {time.perf_counter() - start:7.1f} s")


@contextmanager
def _resume_hint(output: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print_note(f"{output}: the statistics so far are kept; --resume continues from them")
        raise


if __name__ == "__main__":
    main()
