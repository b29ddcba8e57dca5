"""glesam-calibrate: a float bundle in, an INT8 or FP8 bundle out, and what it cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from glesam_calibration import options
from glesam_runtime.console import WithDefault, run_app
from glesam_runtime.errors import InputError

# Imported where used: `--help` needs nothing of it, and a wrong option is told at once.
if TYPE_CHECKING:
    from glesam_calibration.job import Talk

_DEFAULT = "quantize"


class _Commands(WithDefault):
    """`glesam-calibrate BUNDLE ...` is `glesam-calibrate quantize BUNDLE ...`."""

    default = _DEFAULT


app = typer.Typer(
    help="Quantize a float bundle to INT8 or FP8, and say what it costs.",
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)


def main() -> NoReturn:
    """The glesam-calibrate command."""
    run_app(app, "glesam-calibrate")


@app.command(_DEFAULT)
def quantize(
    bundle: options.BundlePath,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Bundle folder to write.")
    ],
    images: options.Places = None,
    more: options.MorePlaces = None,
    int8: options.Int8 = False,
    fp8: options.Fp8 = False,
    samples: options.SampleCount = 64,
    seed: options.Seed = 0,
    method: options.Method = None,
    percentile: options.Percentile = None,
    smooth: options.Smooth = None,
    weights_only: options.WeightsOnly = "decoder",
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
        typer.Option("--sensitivity", metavar="FILE", help="For --target-iou, if it is known."),
    ] = None,
    by: options.By = "layer",
    evaluate: options.Truth = options.TRUTH,
    evaluate_images: options.TruthImages = 4,
    resume: options.Resume = False,
    allow_parity_failure: Annotated[
        bool, typer.Option("--allow-parity-failure", help="Write a bundle outside its gate.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Quantize BUNDLE. The default command: its name may be left out.

    Statistics are taken of IMAGES, clear and at LQ-1..3; without any, of procedural ones.
    """
    recipe = options.recipe(int8, fp8, method, percentile, smooth, weights_only, keep_float or [])
    unit = options.unit_of(by)
    if target_iou is not None and not 0 < target_iou <= 1:
        raise InputError(f"--target-iou {target_iou:g}: must lie above 0 and be at most 1")
    if ranking is not None and target_iou is None:
        raise InputError("--sensitivity goes with --target-iou")
    options.require_calibration()
    from glesam_calibration import job, report, sensitivity

    target = None
    if target_iou is not None:
        known = None if ranking is None else sensitivity.read_ranking(ranking)
        target = job.Target(target_iou, unit, known)
    opened = options.open_float(bundle)
    data = options.data_of(images, more, samples, seed, evaluate, evaluate_images)
    with _told_how_to_resume(output):
        manifest, measured = job.calibrate(
            opened,
            output,
            data,
            recipe,
            _talk(),
            target=target,
            resume=resume,
            allow_parity_failure=allow_parity_failure,
        )
    print(report.stage_table(measured.images))
    print(report.summary(opened.manifest, manifest, measured))
    assert manifest.calibration is not None, "just calibrated"
    for stage, names in manifest.calibration.float_layers.items():
        print(f"float in the {stage}: {', '.join(names)}")
    print(f"wrote {output}")


@app.command("sensitivity")
def rank(
    bundle: options.BundlePath,
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for sensitivity.json and sensitivity.png."
        ),
    ],
    images: options.Places = None,
    more: options.MorePlaces = None,
    int8: options.Int8 = False,
    fp8: options.Fp8 = False,
    samples: options.SampleCount = 64,
    seed: options.Seed = 0,
    method: options.Method = None,
    percentile: options.Percentile = None,
    weights_only: options.WeightsOnly = "decoder",
    by: options.By = "layer",
    evaluate: options.Truth = options.TRUTH,
    evaluate_images: options.TruthImages = 2,
    resume: options.Resume = False,
    debug: options.Debug = False,
) -> None:
    """Rank layers by what quantizing each alone costs, in mask IoU and in its stage's error."""
    recipe = options.recipe(int8, fp8, method, percentile, None, weights_only, [])
    unit = options.unit_of(by)
    options.require_calibration()
    import msgspec

    from glesam_calibration import chart, compare, job, sensitivity
    from glesam_evaluation.plot import require_matplotlib
    from glesam_runtime.staging import staged_file

    require_matplotlib()
    opened = options.open_float(bundle)
    data = options.data_of(images, more, samples, seed, evaluate, evaluate_images)
    talk = _talk()
    output.mkdir(parents=True, exist_ok=True)
    with _told_how_to_resume(output):
        _, state, seen = job.take_statistics(opened, data, output / ".calibration", resume, talk)
        yardstick = compare.Yardstick(opened, job.gate_cases(data))
        ranking = sensitivity.rank(yardstick, seen, recipe, unit, _counter(f"{unit}s"))
    with (
        staged_file(output / "sensitivity.json") as json,
        staged_file(output / "sensitivity.png") as plot,
    ):
        json.write_bytes(msgspec.json.format(msgspec.json.encode(ranking), indent=2) + b"\n")
        chart.draw(ranking, plot)
    state.remove()
    print(f"{'stage':<10}{unit:<58}{'IoU lost':>10}{'error':>10}")
    for cost in ranking.costs[:20]:
        print(f"{cost.stage:<10}{cost.unit:<58}{cost.iou_lost:>10.5f}{cost.stage_error:>10.5f}")
    print(f"{output}: sensitivity.json, sensitivity.png")


@app.command("report")
def compare_bundles(
    bundle: options.BundlePath,
    quantized: Annotated[Path, typer.Argument(metavar="QUANTIZED", help="What was made of it.")],
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Images with masks: a folder, a JSON, scenes:N.")
    ],
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N images only.")
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="Comma list: 1-point to 10-point, box, noise-box.")
    ] = "3-point,box",
    seed: options.Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="DIR", help="Folder for report.md and plot.png."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Float and quantized bundle against the truth and each other: IoU, Dice, pixel accuracy."""
    options.require_calibration()
    from glesam_calibration import compare, report
    from glesam_calibration.cases import Cases
    from glesam_evaluation.datasets import open_dataset
    from glesam_evaluation.prompting import parse_prompt_kinds
    from glesam_runtime.bundle import open_bundle

    opened, other = options.open_float(bundle), open_bundle(quantized)
    if opened.manifest.model != other.manifest.model:
        raise InputError(f"{quantized}: is not made of {bundle}: another model")
    dataset = open_dataset(data)
    count = len(dataset) if limit is None else min(limit, len(dataset))
    cases = Cases(dataset, count, prompts=parse_prompt_kinds(prompts), seed=seed)
    measured = compare.compare_in_parts(opened, other, cases, _counter("images"))
    print(report.report(opened, other, data, seed, measured), end="")
    if output is not None:
        report.write_report(opened, other, data, seed, measured, output)
        print(f"\n{output}: report.md, plot.png")


def _talk() -> Talk:
    from glesam_calibration.job import Talk

    counters: dict[str, Any] = {}

    def progress(stage: str, done: int, total: int) -> None:
        counters.setdefault(stage, _counter(f"runs of the {stage}"))(done, total)

    return Talk(lambda words: typer.echo(f"warning: {words}", err=True), progress, _step)


def _counter(what: str) -> Any:
    """Says on stderr how much of something is done, a line each tenth."""

    def told(done: int, total: int) -> None:
        if done == total or done * 10 // total > (done - 1) * 10 // total:
            print(f"{done} of {total} {what}", file=sys.stderr, flush=True)

    return told


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Say on stderr what is done, and how long it took."""
    start = time.perf_counter()
    yield
    print(f"{what:<44} {time.perf_counter() - start:7.1f} s", file=sys.stderr, flush=True)


@contextmanager
def _told_how_to_resume(output: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"{output}: statistics so far are kept; --resume goes on from them", err=True)
        raise


if __name__ == "__main__":
    main()
