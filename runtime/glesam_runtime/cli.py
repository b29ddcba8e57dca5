"""glesam-run: images and prompts to masks, or the self-test of a bundle."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from glesam_runtime.console import make_app, report, run_app
from glesam_runtime.errors import GlesamError, InputError, ParityError

# Everything else is imported where it is used: `--help` needs no numpy, and a wrong option is
# told before an engine has been loaded.
if TYPE_CHECKING:
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.segment import Job

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
def run(
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
    backend: Annotated[str, typer.Option(help="auto or onnxruntime.")] = "auto",
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; default is the backend's.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the results.")
    ] = Path(),
    multimask: Annotated[
        bool, typer.Option("--multimask", help="Three masks a prompt instead of one.")
    ] = False,
    no_enhance: Annotated[
        bool, typer.Option("--no-enhance", help="Plain SAM, without the enhancer.")
    ] = False,
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
    of the prompts. Exit code 2 if any image failed.
    """
    if selftest:
        if images or points or box or prompts:
            raise InputError("--selftest takes no images and no prompts")
        _selftest(bundle, backend, device, json)
        return
    from glesam_runtime import prompt_requests

    requests = prompt_requests.from_options(points or [], box or [])
    if prompts is not None:
        requests += prompt_requests.from_file(prompts)
    if not images:
        raise InputError("no image: name at least one file (--help shows the options)")
    if not requests:
        raise InputError("no prompt: give --points, --box or --prompts")
    if output.exists() and not output.is_dir():
        raise InputError(f"-o {output}: is a file, a folder is needed")
    missing = [image for image in images if not image.exists()]
    if len(missing) == len(images):  # spares the time to load a bundle
        for image in missing:
            report(f"{image}: no such file")
        raise typer.Exit(InputError.exit_code)

    opened = _open_bundle(bundle)
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.segment import plan_jobs, run_job

    predictor = GleSamPredictor(opened, backend=backend, device=device, enhance=not no_enhance)
    inputs = frozenset(image.resolve() for image in images)
    results: list[dict[str, Any]] = []
    failed = False
    with _progress(plan_jobs(images, output)) as jobs:
        for job in jobs:
            try:
                result = run_job(predictor, job, requests, multimask=multimask, inputs=inputs)
            except GlesamError as error:
                if debug:
                    raise
                failed = True
                report(str(error))
                result = {"image": str(job.image), "error": str(error)}
            results.append(result)
            if not json and "error" not in result:
                _print_result(result)
    if json:
        _print_json({**_what_ran(predictor, not no_enhance), "images": results})
    if failed:
        raise typer.Exit(InputError.exit_code)


def _selftest(path: Path | None, backend: str, device: str | None, as_json: bool) -> None:
    from glesam_runtime.selftest import format_table, run_selftest

    opened = _open_bundle(path)
    result = run_selftest(opened, backend, device)
    if as_json:
        _print_json({"bundle": _describe_bundle(opened), **result.as_dict()})
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


@contextmanager
def _progress(jobs: list[Job]) -> Iterator[Iterable[Job]]:
    """A progress bar on stderr, for several images and a person watching."""
    if len(jobs) < 2 or not sys.stderr.isatty():
        yield jobs
        return
    from rich.console import Console
    from rich.progress import Progress

    # Rich would print on stderr what is meant for a file that stdout is sent to.
    lines = sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=lines) as bar:
        yield bar.track(jobs, description="images")


def _print_result(result: dict[str, Any]) -> None:
    """A line an image, and one a mask."""
    total = sum(result["seconds"].values())
    print(f"{result['image']}  {result['width']} x {result['height']}  {total:.2f} s")
    for mask in result["masks"]:
        print(
            f"  {mask['file']}  IoU {mask['predicted_iou']:.3f}  "
            f"stability {mask['stability_score']:.3f}  area {mask['area']}"
        )
    print(f"  {result['overlay']}")


def _print_json(document: dict[str, Any]) -> None:
    import json

    print(json.dumps(document, indent=2, allow_nan=False))


def _what_ran(predictor: GleSamPredictor, enhance: bool) -> dict[str, Any]:
    return {
        "bundle": _describe_bundle(predictor.bundle),
        "engine": predictor.engine.describe(),
        "enhance": enhance,
        "load_seconds": round(predictor.timings["load"], 6),
    }


def _describe_bundle(bundle: Bundle) -> dict[str, Any]:
    model = bundle.manifest.model
    return {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "family": model.family,
        "preset": model.preset,
        "unet": model.unet,
        "trained": model.trained,
        "precision": {name: stage.precision for name, stage in bundle.manifest.stages.items()},
    }
