"""Implement glesam-run: segment images, show a demo, or test a bundle."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from glesam_runtime.console import Debug, make_app, report, run_app
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import GlesamError, InputError, ParityError
from glesam_runtime.everything.parameters import EverythingOptions
from glesam_runtime.input_paths import exists, resolved
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.printing import (
    describe_bundle,
    print_json,
    print_line,
    print_note,
    print_result,
    progress,
    what_ran,
)
from glesam_runtime.sample_depth import Depth

# Everything else is imported where it is used: `--help` needs no numpy, and a wrong option is
# reported before an engine is loaded.
if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.output_files import OutputFiles
    from glesam_runtime.overlap import Work
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.prompt_requests import PromptRequest


app = make_app("Segment images of any quality with a GleSAM bundle.")


def main() -> NoReturn:
    """Run the glesam-run command."""
    run_app(app, "glesam-run")


def _show_version(asked: bool) -> None:
    if asked:
        from glesam_runtime import __version__

        print(f"glesam-run {__version__}")
        raise typer.Exit


@app.command()
@expand_groups
def run(
    engine: RequestedEngine,
    search: EverythingOptions,
    images: Annotated[list[Path] | None, typer.Argument(help="Image files.")] = None,
    points: Annotated[
        list[str] | None,
        typer.Option(
            "--points",
            metavar="X,Y[,LABEL]",
            help="Add a point to the prompt, in pixels. Label 1 (default) marks the object, 0 the "
            "background. Repeatable; all points refine one object.",
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="X0,Y0,X1,Y1",
            help="Prompt with a box, in pixels. Repeatable; each box is a separate object. With "
            "--points, give one box at most: both belong to one object.",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also read prompts from this JSON file: an array of {points, labels, box}.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Bundle folder. Default: the built-in nano."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            show_default=False,
            help="Folder for the results. Default: the current folder.",
        ),
    ] = Path(),
    multimask: Annotated[
        bool,
        typer.Option(
            "--multimask",
            help="Return three masks per prompt. Default: one mask (in Python, "
            "predict returns three by default, as segment_anything does).",
        ),
    ] = False,
    prompt_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Maximum number of prompts per decoder call. Default: 8 on a CPU, else 64.",
        ),
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Number of images read, inferred or written at the same time; memory grows with "
            "it. Default: one per stream, plus one per core up to 8.",
        ),
    ] = None,
    depth: Annotated[
        Depth,
        typer.Option(
            help="Bits that the samples of 16-bit gray images use. auto takes the tags of a TIFF, "
            "otherwise 16."
        ),
    ] = Depth.AUTO,
    no_enhance: Annotated[
        bool, typer.Option("--no-enhance", help="Skip the enhancer and run plain SAM.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of text.")
    ] = False,
    demo: Annotated[
        bool, typer.Option("--demo", help="Segment the built-in sample picture with its prompts.")
    ] = False,
    selftest: Annotated[
        bool,
        typer.Option(
            "--selftest", help="Compare this machine's results with the bundle's golden file."
        ),
    ] = False,
    debug: Debug = False,
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = None,
) -> None:
    """Segment IMAGES: write <stem>_mask.png and <stem>_overlay.png for each.

    Several masks become <stem>_mask_0.png, <stem>_mask_1.png and so on,
    in the order of the prompts.

    --everything writes all masks into <stem>_instances.png: 16 bits per pixel,
    0 where there is no mask.

    The exit code is 2 if any image failed.
    """
    engine.check_backend()
    parameters = search.parameters()
    if demo or selftest:
        name = "--demo" if demo else "--selftest"
        if images or points or box or prompts or parameters or (demo and selftest):
            raise InputError(f"{name} takes no images and no prompts; leave them out")
    if selftest:
        _selftest(bundle, engine, json)
        return
    if parameters and (points or box or prompts or multimask):
        raise InputError(
            "--everything takes no --points, --box, --prompts or --multimask, because it prompts a "
            "grid of points; leave them out, or leave out --everything"
        )
    if parameters and prompt_batch:
        raise InputError(
            "--prompt-batch does not apply to --everything; use --points-per-batch instead"
        )
    if exists(output) and not output.is_dir():
        raise InputError(f"-o {output}: is a file, a folder is needed")
    if demo:
        from glesam_runtime.demo import write_sample

        sample = write_sample(output)
        images, prompts = [sample.image], sample.prompts
    requests = [] if parameters else _requests(points, box, prompts)
    _check_images(images)
    opened = _open_bundle(bundle)
    from glesam_runtime.output_files import plan_outputs
    from glesam_runtime.predictor import GleSamPredictor

    predictor = GleSamPredictor(
        opened,
        backend=engine.backend,
        device=engine.device,
        enhance=not no_enhance,
        options=engine.options(),
        prompt_batch=search.prompt_batch if parameters else prompt_batch,
    )
    inputs = frozenset(resolved(image) for image in images or [])
    work: Work[OutputFiles, Any, Any, dict[str, Any]]
    if parameters:
        from glesam_runtime.everything.segment_file import EverythingSegmentation

        work = EverythingSegmentation(parameters, search.mask_files, inputs, depth)
    else:
        from glesam_runtime.segment_file import PromptedSegmentation

        work = PromptedSegmentation(opened.manifest, requests, multimask, inputs, depth)
    planned = plan_outputs(images or [], output)
    start = time.perf_counter()
    results = _run_all(work, planned, predictor, engine.streams, in_flight, quiet=json, debug=debug)
    if json:
        seconds = round(time.perf_counter() - start, 6)
        print_json({**what_ran(predictor, not no_enhance), "seconds": seconds, "images": results})
    elif predictor.engine_reason and not all("error" in result for result in results):
        print_note(predictor.engine_reason)
    if demo and not json:
        from glesam_runtime.demo import describe_demo

        for line in describe_demo(output).split("\n"):
            print_line(line)
    if any("error" in result for result in results):
        raise typer.Exit(InputError.exit_code)


def _requests(
    points: list[str] | None, box: list[str] | None, prompts: Path | None
) -> list[PromptRequest]:
    """Return the prompts that the options give; there must be at least one."""
    from glesam_runtime import prompt_requests

    requests = prompt_requests.from_options(points or [], box or [])
    if prompts is not None:
        requests += prompt_requests.from_file(prompts)
    if not requests:
        raise InputError("no prompt: give --points, --box, --prompts or --everything")
    prompt_requests.check_without_image(requests)
    return requests


def _check_images(images: list[Path] | None) -> None:
    """Raise an error if none of the images exists, before a bundle is loaded."""
    if not images:
        raise InputError(
            "no image: name at least one file, or try --demo (--help shows the options)"
        )
    if not any(exists(image) for image in images):
        for image in images:
            report(f"{image}: no such file")
        raise typer.Exit(InputError.exit_code)


def _run_all(
    work: Work[OutputFiles, Any, Any, dict[str, Any]],
    planned: list[OutputFiles],
    predictor: GleSamPredictor,
    streams: int,
    in_flight: int | None,
    *,
    quiet: bool,
    debug: bool,
) -> list[dict[str, Any]]:
    """Work on all images in order; an image that fails is reported and the others continue."""
    from glesam_runtime.overlap import run_each, run_overlapped

    outcomes = (
        run_each(work, planned, predictor)
        if len(planned) == 1 or in_flight == streams == 1
        else run_overlapped(work, planned, predictor, streams, in_flight)
    )
    results: list[dict[str, Any]] = []
    with closing(outcomes), progress(outcomes, len(planned)) as shown:
        for files, outcome in zip(planned, shown, strict=True):
            if isinstance(outcome, GlesamError):
                if debug:
                    raise outcome
                report(str(outcome))
                results.append({"image": str(files.image), "error": str(outcome)})
                continue
            results.append(outcome)
            if "note" in outcome:
                print_note(outcome["note"])
            if not quiet:
                print_result(outcome)
    return results


def _selftest(path: Path | None, engine: RequestedEngine, as_json: bool) -> None:
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
    """Open a bundle, and note on stderr if it is the built-in one or untrained."""
    from glesam_runtime.bundle import open_bundle

    opened = open_bundle(path)
    if path is None:
        print_note("using the built-in nano bundle; --bundle runs another")
    if not opened.manifest.model.trained:
        print_note("this bundle is untrained, its masks are meaningless")
    return opened
