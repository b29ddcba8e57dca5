"""Implement glesam-run: segment images, show a demo, or test a bundle."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from glesam_runtime import run_inputs
from glesam_runtime.common_options import make_app
from glesam_runtime.console import report, run_app
from glesam_runtime.engine_options import RequestedEngine
from glesam_runtime.errors import GlesamError, InputError, ParityError
from glesam_runtime.everything.parameters import EverythingOptions
from glesam_runtime.expected_work import ExpectedWork
from glesam_runtime.input_paths import resolved
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.printing import print_json, print_result
from glesam_runtime.run_options import (
    EnhanceOptions,
    ImageOptions,
    OutputOptions,
    PromptOptions,
    TileOptions,
    VideoOptions,
)
from glesam_runtime.terminal_text import print_line
from glesam_runtime.verbosity import is_debug, print_detail, print_note, spell_seconds

# Everything else is imported where it is used: `--help` needs no numpy, and a wrong option is
# reported before an engine is loaded.
if TYPE_CHECKING:
    from collections.abc import Sequence

    from glesam_runtime.bundle import Bundle
    from glesam_runtime.output_files import OutputFiles
    from glesam_runtime.overlap import Work
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.progress_bars import Bars
    from glesam_runtime.prompt_requests import PromptRequest
    from glesam_runtime.results import ImageError, ImageResult


app = make_app("Segment images of any quality with a GleSAM bundle.")


def main() -> NoReturn:
    """Run the glesam-run command."""
    run_app(app, "glesam-run")


@app.command()
@expand_groups
def run(
    source: ImageOptions,
    asked: PromptOptions,
    tiles: TileOptions,
    clip: VideoOptions,
    out: OutputOptions,
    engine: RequestedEngine,
    search: EverythingOptions,
    enhancing: EnhanceOptions,
    bundle: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Bundle folder, or a Hugging Face repository ORG/NAME[@REVISION]. Default: the "
            "built-in nano.",
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
    demo: Annotated[
        bool, typer.Option("--demo", help="Segment the built-in sample picture with its prompts.")
    ] = False,
    selftest: Annotated[
        bool,
        typer.Option(
            "--selftest", help="Compare this machine's results with the bundle's golden file."
        ),
    ] = False,
) -> None:
    """Segment IMAGES: write <stem>_mask.png and <stem>_overlay.png for each.

    Several masks become <stem>_mask_0.png, <stem>_mask_1.png and so on,
    in the order of the prompts.

    --everything writes all masks into <stem>_instances.png: 0 where there is
    no mask, else the number on the overlay. The map has 8 bits per pixel and
    a palette of colours. With more than 254 masks it has 16 bits, and
    <stem>_instances_colours.png shows it in colours.

    --tile segments large images in tiles and joins objects across their
    seams. The overlay is then reduced to at most 2,048 pixels a side.

    --video writes <stem>_masks.mp4, the video with the masks, and
    <stem>_masks.jsonl, a JSON object for each object and frame.

    The exit code is 2 if any image failed.
    """
    engine.check_backend()
    out.check()
    enhance, timestep = enhancing.mode(), enhancing.timestep
    parameters, sides = search.parameters(), tiles.sides()
    if sides and parameters and parameters.crop_n_layers:
        raise InputError("--crop-n-layers: --tile takes the place of crops; leave out one of them")
    run_inputs.check_combination(
        source, asked, out, parameters, search.mask_files, demo, selftest, timestep
    )
    clip.check(
        {
            "images": source.images,
            "--everything": parameters,
            "--tile": sides,
            "--multimask": asked.multimask,
            "--json": out.json,
            "--in-flight": in_flight,
            "--demo": demo,
            "--selftest": selftest,
        }
    )
    if selftest:
        _selftest(bundle, engine, out.json)
        return
    if clip.video is not None:
        _follow(
            clip.video,
            clip.frames,
            run_inputs.requests_of(asked, asked.prompts),
            out,
            bundle,
            engine,
            enhancing,
        )
        return
    arguments, prompts = source.images, asked.prompts
    if demo:
        from glesam_runtime.demo import write_sample

        sample = write_sample(out.folder)
        arguments, prompts = [str(sample.image)], sample.prompts
    requests = [] if parameters else run_inputs.requests_of(asked, prompts)
    images = run_inputs.find(arguments, source.recursive, requests, limited=not sides)
    opened = _open_bundle(bundle)
    from glesam_runtime.output_files import plan_outputs
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.progress_bars import progress_bars

    predictor = GleSamPredictor(
        opened,
        backend=engine.backend,
        device=engine.device,
        enhance=enhance,
        options=engine.options(),
        prompt_batch=search.prompt_batch if parameters else asked.prompt_batch,
        timestep=timestep,
        work=parameters.work_on(len(images))
        if parameters
        else ExpectedWork(len(images), len(images) * len(requests)),
    )
    inputs = frozenset(resolved(image.path) for image in images if image.content is None)
    planned = plan_outputs(images, out.folder)
    start = time.perf_counter()
    with progress_bars() as bars:
        work: Work[OutputFiles, Any, Any, ImageResult]
        write = not out.no_files
        if sides:
            from glesam_runtime.tiling.segment_file import TiledSegmentation

            work = TiledSegmentation(
                *(*sides, requests, parameters, asked.multimask, search.mask_files, inputs),
                *(source.depth, write, bars.points),
            )
        elif parameters:
            from glesam_runtime.everything.segment_file import EverythingSegmentation

            work = EverythingSegmentation(
                parameters, search.mask_files, inputs, source.depth, write, bars.points
            )
        else:
            from glesam_runtime.segment_file import PromptedSegmentation

            work = PromptedSegmentation(
                opened.manifest, requests, asked.multimask, inputs, source.depth, write
            )
        results = _run_all(
            work, planned, predictor, bars, engine.streams, in_flight, as_json=out.json
        )
    failed = [result for result in results if hasattr(result, "error")]
    if out.json:
        _print_document(predictor, results, since=start)
    elif predictor.engine_reason and len(failed) < len(results):
        print_note(predictor.engine_reason)
    if demo and not out.json:
        from glesam_runtime.demo import describe_demo

        for line in describe_demo(out.folder).split("\n"):
            print_line(line)
    if failed:
        raise typer.Exit(InputError.exit_code)


def _run_all(
    work: Work[OutputFiles, Any, Any, ImageResult],
    planned: list[OutputFiles],
    predictor: GleSamPredictor,
    bars: Bars,
    streams: int,
    in_flight: int | None,
    *,
    as_json: bool,
) -> list[ImageResult | ImageError]:
    """Work on all images in order; an image that fails is reported and the others continue."""
    from glesam_runtime.overlap import run_each, run_overlapped
    from glesam_runtime.results import ImageError

    outcomes = (
        run_each(work, planned, predictor)
        if len(planned) == 1 or in_flight == streams == 1
        else run_overlapped(work, planned, predictor, streams, in_flight)
    )
    results: list[ImageResult | ImageError] = []
    with closing(outcomes):
        shown = bars.images(outcomes, len(planned))
        for files, outcome in zip(planned, shown, strict=True):
            if isinstance(outcome, GlesamError):
                if is_debug():
                    raise outcome
                report(str(outcome))
                results.append(ImageError(image=str(files.image), error=str(outcome)))
                continue
            results.append(outcome)
            print_detail(f"{outcome.image}: {spell_seconds(outcome.seconds)}")
            if outcome.note:
                print_note(outcome.note)
            if not as_json:
                print_result(outcome)
    return results


def _print_document(
    predictor: GleSamPredictor,
    results: Sequence[ImageResult | ImageError],
    *,
    since: float,
) -> None:
    """Print the document of --json."""
    from msgspec import UNSET

    from glesam_runtime.results import BundleInfo, Results

    print_json(
        Results(
            bundle=BundleInfo.of(predictor.bundle),
            engine={**predictor.engine.describe(), "reason": predictor.engine_reason},
            enhance=predictor.enhancing.mode,
            timestep=UNSET
            if predictor.timestep is None or not predictor.enhancing.may_enhance
            else predictor.timestep,
            load_seconds=round(predictor.timings["load"], 6),
            seconds=round(time.perf_counter() - since, 6),
            images=tuple(results),
        )
    )


def _follow(
    video: str,
    frames: int | None,
    requests: Sequence[PromptRequest],
    out: OutputOptions,
    bundle: str | None,
    engine: RequestedEngine,
    enhancing: EnhanceOptions,
) -> None:
    """Follow the prompts' objects through a video; the exit code is 2 if it broke off."""
    from glesam_runtime.follow import Follower
    from glesam_runtime.follow_video import follow_video
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.printing import print_video
    from glesam_runtime.progress_bars import progress_bars
    from glesam_runtime.prompt_requests import check_size
    from glesam_runtime.video_file import open_video

    with open_video(video, frames) as reader:
        check_size(requests, (reader.height, reader.width), video)
        count = frames or reader.expected
        predictor = GleSamPredictor(
            _open_bundle(bundle),
            backend=engine.backend,
            device=engine.device,
            enhance=enhancing.mode(),
            options=engine.options(),
            timestep=enhancing.timestep,
            work=ExpectedWork(count, count and count * len(requests)),
        )
        with progress_bars() as bars:
            result = follow_video(reader, Follower(predictor), requests, out.folder, bars, frames)
    print_video(result)
    if result.broken:
        raise InputError(
            f"{video}: breaks off, {result.broken}; the outputs hold the {result.frames} frames "
            "before"
        )


def _selftest(path: str | None, engine: RequestedEngine, as_json: bool) -> None:
    from glesam_runtime.results import BundleInfo
    from glesam_runtime.selftest import format_table, run_selftest

    opened = _open_bundle(path)
    result = run_selftest(opened, engine.backend, engine.device, engine.options())
    if as_json:
        print_json({"bundle": BundleInfo.of(opened), **result.as_dict()})
    else:
        print(format_table(result))
    if not result.passed:
        raise ParityError(f"{opened.path}: self-test failed: {'; '.join(result.failures)}")


def _open_bundle(path: str | None) -> Bundle:
    """Open a bundle, and note on stderr if it is the built-in one or untrained."""
    from glesam_runtime.bundle import open_bundle

    opened = open_bundle(path)
    if path is None:
        print_note("using the built-in nano bundle; --bundle runs another")
    if not opened.manifest.model.trained:
        print_note("this bundle is untrained, its masks are meaningless")
    return opened
