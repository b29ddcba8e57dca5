"""glesam-run: images and prompts to masks, or the self-test of a bundle."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from glesam_runtime.console import make_app, report, run_app
from glesam_runtime.engine_choice import EngineChoice
from glesam_runtime.errors import GlesamError, InputError, ParityError
from glesam_runtime.everything import options
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.printing import describe_bundle, print_json, print_result, progress, what_ran

# Everything else is imported where it is used: `--help` needs no numpy, and a wrong option is
# told before an engine has been loaded.
if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.jobs import Job
    from glesam_runtime.overlap import Work
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.prompt_requests import PromptRequest


app = make_app("Segment images of any quality with a GleSAM bundle.")


def main() -> NoReturn:
    """The glesam-run command."""
    run_app(app, "glesam-run")


def _show_version(asked: bool) -> None:
    if asked:
        from glesam_runtime import __version__

        print(f"glesam-run {__version__}")
        raise typer.Exit


@app.command()
@expand_groups
def run(
    context: typer.Context,
    engine: EngineChoice,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.")] = None,
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--points",
            metavar="X,Y[,LABEL]",
            help="A point in pixels; label 1 (object, the default) or 0 (background). "
            "All points given are one prompt.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="X0,Y0,X1,Y1",
            help="A box in pixels. Each is a prompt of its own; with points, one box joins them.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="JSON array of prompts: points, labels, box. Added to those above."),
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="A bundle folder; default is the built-in nano.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")
    ] = Path(),
    multimask: Annotated[
        bool, typer.Option("--multimask", help="Three masks a prompt instead of one.")
    ] = False,
    prompt_batch: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Prompts a decoder call, at most; default 8 on a CPU, else 64."
        ),
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Images read, inferred or written at a time; each takes its memory. "
            "Default is one a stream and one a core.",
        ),
    ] = None,
    no_enhance: Annotated[
        bool, typer.Option("--no-enhance", help="Plain SAM, without the enhancer.")
    ] = False,
    everything: options.Everything = False,
    points_per_side: options.PointsPerSide = None,  # these are read from the context
    points_per_batch: options.PointsPerBatch = None,
    pred_iou_thresh: options.PredIouThresh = None,
    stability_score_thresh: options.StabilityScoreThresh = None,
    stability_score_offset: options.StabilityScoreOffset = None,
    box_nms_thresh: options.BoxNmsThresh = None,
    crop_n_layers: options.CropNLayers = None,
    crop_nms_thresh: options.CropNmsThresh = None,
    crop_overlap_ratio: options.CropOverlapRatio = None,
    crop_n_points_downscale_factor: options.CropNPointsDownscaleFactor = None,
    min_mask_region_area: options.MinMaskRegionArea = None,
    mask_files: options.MaskFiles = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of text.")
    ] = False,
    selftest: Annotated[
        bool, typer.Option("--selftest", help="Compare this machine with the bundle's golden file.")
    ] = False,
    debug: Annotated[  # read by console.py, from the arguments themselves
        bool, typer.Option("--debug", help="Show the traceback behind an error.")
    ] = False,
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = None,
) -> None:
    """Segment IMAGES: write <stem>_mask.png and <stem>_overlay.png for each.

    Several masks of an image become <stem>_mask_0.png, <stem>_mask_1.png and so on, in the order
    of the prompts. With --everything all masks are in <stem>_instances.png, 16 bits a pixel, 0
    where there is none. Exit code 2 if any image failed.
    """
    search = options.parameters_of(context.params)
    if selftest:
        if images or points or box or prompts or search:
            raise InputError("--selftest takes no images and no prompts")
        _selftest(bundle, engine, json)
        return
    if search and (points or box or prompts or multimask):
        raise InputError(
            "--everything takes no --points, --box, --prompts or --multimask: "
            "it prompts a grid of points of its own; leave them out, or leave out --everything"
        )
    if search and prompt_batch:
        raise InputError("--prompt-batch is for prompts; with --everything say --points-per-batch")
    requests = [] if search else _requests(points, box, prompts)
    _check_paths(images, output)
    opened = _open_bundle(bundle)
    from glesam_runtime.jobs import plan_jobs
    from glesam_runtime.predictor import GleSamPredictor

    predictor = GleSamPredictor(
        opened,
        backend=engine.backend,
        device=engine.device,
        enhance=not no_enhance,
        options=engine.options(),
        prompt_batch=points_per_batch if search else prompt_batch,
    )
    inputs = frozenset(image.resolve() for image in images or [])
    work: Work[Job, Any, Any, dict[str, Any]]
    if search:
        from glesam_runtime.everything.job import Everything

        work = Everything(search, mask_files, inputs)
    else:
        from glesam_runtime.segment import Segmenting

        work = Segmenting(opened.manifest, requests, multimask, inputs)
    jobs = plan_jobs(images or [], output)
    start = time.perf_counter()
    results = _run_all(work, jobs, predictor, engine.streams, in_flight, quiet=json, debug=debug)
    if json:
        seconds = round(time.perf_counter() - start, 6)
        print_json({**what_ran(predictor, not no_enhance), "seconds": seconds, "images": results})
    elif predictor.engine_reason and not all("error" in result for result in results):
        print(f"note: {predictor.engine_reason}", file=sys.stderr)
    if any("error" in result for result in results):
        raise typer.Exit(InputError.exit_code)


def _requests(
    points: list[str] | None, box: list[str] | None, prompts: Path | None
) -> list[PromptRequest]:
    """What the options ask for, at least one prompt."""
    from glesam_runtime import prompt_requests

    requests = prompt_requests.from_options(points or [], box or [])
    if prompts is not None:
        requests += prompt_requests.from_file(prompts)
    if not requests:
        raise InputError("no prompt: give --points, --box or --prompts, or --everything")
    return requests


def _check_paths(images: list[Path] | None, output: Path) -> None:
    """Some image exists and results have a place: known before a bundle is loaded."""
    if not images:
        raise InputError("no image: name at least one file (--help shows the options)")
    if output.exists() and not output.is_dir():
        raise InputError(f"-o {output}: is a file, a folder is needed")
    if not any(image.exists() for image in images):
        for image in images:
            report(f"{image}: no such file")
        raise typer.Exit(InputError.exit_code)


def _run_all(
    work: Work[Job, Any, Any, dict[str, Any]],
    jobs: list[Job],
    predictor: GleSamPredictor,
    streams: int,
    in_flight: int | None,
    *,
    quiet: bool,
    debug: bool,
) -> list[dict[str, Any]]:
    """Work on all images; one that fails is reported in its turn and does not stop the rest."""
    from glesam_runtime.overlap import run_each, run_overlapped

    outcomes = (
        run_each(work, jobs, predictor)
        if len(jobs) == 1 or in_flight == streams == 1
        else run_overlapped(work, jobs, predictor, streams, in_flight)
    )
    results: list[dict[str, Any]] = []
    with closing(outcomes), progress(outcomes, len(jobs)) as shown:
        for job, outcome in zip(jobs, shown, strict=True):
            if isinstance(outcome, GlesamError):
                if debug:
                    raise outcome
                report(str(outcome))
                results.append({"image": str(job.image), "error": str(outcome)})
                continue
            results.append(outcome)
            if not quiet:
                print_result(outcome)
    return results


def _selftest(path: Path | None, engine: EngineChoice, as_json: bool) -> None:
    from glesam_runtime.selftest import format_table, run_selftest

    opened = _open_bundle(path)
    result = run_selftest(opened, engine.backend, engine.device, engine.options())
    if as_json:
        print_json({"bundle": describe_bundle(opened), **result.as_dict()})
    else:
        print(format_table(result))
    if not result.passed:
        raise ParityError(f"{opened.path}: self-test failed: {'; '.join(result.failures)}")


def _open_bundle(path: Path | None) -> Bundle:
    """Open a bundle, and say on stderr what its masks are worth where that is not plain."""
    from glesam_runtime.bundle import open_bundle

    opened = open_bundle(path)
    if path is None:
        print("note: no --bundle given, the built-in nano bundle runs", file=sys.stderr)
    if not opened.manifest.model.trained:
        print("note: this bundle is untrained, its masks mean nothing", file=sys.stderr)
    return opened
