"""glesam-evaluate: a bundle or checkpoint, with and without its enhancer, against the truth."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from glesam_runtime.console import make_app, run_app
from glesam_runtime.errors import InputError

# Imported where used: `--help` needs nothing of it, and a bundle is evaluated without torch.
if TYPE_CHECKING:
    from glesam_evaluation.protocol import Segmenter
    from glesam_evaluation.results import Results

app = make_app("Measure IoU, Dice and pixel accuracy of a bundle or checkpoint.")

_REPORT, _JSON, _PLOT = "report.md", "report.json", "plot.png"
_CHECKPOINT, _MANIFEST = "checkpoint.json", "manifest.json"


def main() -> NoReturn:
    """The glesam-evaluate command."""
    run_app(app, "glesam-evaluate")


@app.command()
def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A bundle folder, 'nano' for the built-in one, or a checkpoint: a packed "
            ".safetensors file, or a folder with checkpoint.json.",
        ),
    ],
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A folder of images and masks, a COCO or LVIS JSON, or scenes:N, scenes:N@FIRST.",
        ),
    ],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The images of a COCO or LVIS JSON.")
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="Comma list: 1-point to 10-point, box, noise-box.")
    ] = "3-point",
    conditions: Annotated[
        str,
        typer.Option(
            help="Comma list: clear, LQ-1, LQ-2, LQ-3, unseen (haze, low_contrast, darkness), "
            "blur, noise, jpeg."
        ),
    ] = "clear,LQ-1,LQ-2,LQ-3,unseen",
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N images only.")
    ] = None,
    max_masks: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most objects of an image, drawn by the seed.")
    ] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="Decides degradations, prompts and objects.")
    ] = 0,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; default is the engine's.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help=f"Folder for {_REPORT}, {_JSON}, {_PLOT}."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of the tables.")
    ] = False,
    debug: Annotated[  # read by console.py, from the arguments themselves
        bool, typer.Option("--debug", help="Show the traceback behind an error.")
    ] = False,
) -> None:
    """Evaluate MODEL on DATA, with and without the enhancer.

    Every segmenter gets the same images and prompts, drawn from the seed.
    """
    if output is not None:
        _check_output(output)
    _require_calibration()
    from glesam_evaluation.conditions import parse_conditions
    from glesam_evaluation.datasets import open_dataset
    from glesam_evaluation.datasets.sample import printable
    from glesam_evaluation.plot import require_matplotlib
    from glesam_evaluation.prompt_kinds import parse_prompt_kinds
    from glesam_evaluation.protocol import Plan, evaluate
    from glesam_evaluation.report import markdown
    from glesam_evaluation.results import Results

    plan = Plan(
        parse_prompt_kinds(prompts),
        parse_conditions(conditions),
        seed,
        max_masks,
        limit,
    )
    if output is not None:
        require_matplotlib()
    dataset = open_dataset(data, images)
    about, segmenters = _open_model(model, device)
    with _progress() as progress:
        rows = evaluate(segmenters, dataset, plan, progress)
    results = Results(printable(about), printable(data), seed, tuple(rows))
    if output is not None:
        _write(results, output)
    print(_as_json(results) if json else markdown(results), end="")
    if output is not None and not json:
        print(f"\n{output}: {_REPORT}, {_JSON}, {_PLOT}")


def _open_model(model: str, device: str | None) -> tuple[str, dict[str, Segmenter]]:
    """What is evaluated, in a line, and its segmenters."""
    path = Path(model)
    if model == "nano" or (path / _MANIFEST).is_file():
        return _open_bundle(None if model == "nano" else path, device)
    if (path / _CHECKPOINT).is_file() or (path.is_file() and path.suffix == ".safetensors"):
        return _open_checkpoint(path, device)
    if path.exists():
        raise InputError(
            f"{model}: neither a bundle (no {_MANIFEST}) nor a checkpoint (a packed .safetensors "
            f"file, or a folder with {_CHECKPOINT})"
        )
    raise InputError(f"{model}: no such file or folder; for the built-in bundle say nano")


def _open_bundle(path: Path | None, device: str | None) -> tuple[str, dict[str, Segmenter]]:
    from glesam_evaluation.report import describe_model
    from glesam_evaluation.segmenters import bundle_segmenters
    from glesam_runtime.bundle import open_bundle

    bundle = open_bundle(path)
    model = bundle.manifest.model
    precisions = dict.fromkeys(stage.precision for stage in bundle.manifest.stages.values())
    name = "the built-in bundle" if path is None else f"bundle {path}"
    source = f"{name}, {'/'.join(precisions)}, sha256 {bundle.sha256[:12]}"
    about = describe_model(model.preset, model.unet, model.trained, source)
    return about, bundle_segmenters(bundle, device=device)


def _open_checkpoint(path: Path, device: str | None) -> tuple[str, dict[str, Segmenter]]:
    try:
        from glesam_export.checkpoints.formats import open_checkpoint
        from glesam_training.reference_predictor import reference_segmenters
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("glesam"):
            raise
        raise InputError(
            f"{path}: a checkpoint needs {error.name}, which is not installed: "
            "pip install 'glesam-deploy[training]'"
        ) from error
    from glesam_evaluation.report import describe_model

    checkpoint = open_checkpoint(path)
    about = describe_model(
        checkpoint.preset.name, checkpoint.unet.name, checkpoint.trained, f"checkpoint {path}"
    )
    return about, reference_segmenters(checkpoint, device)


def _require_calibration() -> None:
    """Degradations and scenes need OpenCV and scipy."""
    try:
        import glesam_evaluation.degrade  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("cv2", "scipy"):
            raise
        raise InputError(
            f"{error.name} is not installed: pip install 'glesam-deploy[calibration]'"
        ) from error


def _check_output(folder: Path) -> None:
    """Refuse before an hour's work what could not be written after it."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: is a file, a folder is needed")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"-o {folder}: a parent of it is a file")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"-o {folder}: no permission to write in {existing}")
    for name in (_REPORT, _JSON, _PLOT):
        if (folder / name).is_dir():
            raise InputError(f"-o {folder}: {name} in it is a folder; choose another")


def _write(results: Results, folder: Path) -> None:
    """Write the three files, all of them or none."""
    from glesam_evaluation.plot import draw
    from glesam_evaluation.report import markdown
    from glesam_runtime.staging import staged_file

    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:
        report, json, plot = (
            files.enter_context(staged_file(folder / name)) for name in (_REPORT, _JSON, _PLOT)
        )
        report.write_text(markdown(results), encoding="utf-8")
        json.write_text(_as_json(results), encoding="utf-8")
        draw(results, plot)


def _as_json(results: Results) -> str:
    import json

    document = results.as_dict()
    rows = ",\n".join("    " + json.dumps(row) for row in document.pop("rows"))
    head = json.dumps(document, indent=2, allow_nan=False).removesuffix("\n}")
    return f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n'


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Images done, on stderr: a bar for a person, a line each tenth for a log."""
    if not sys.stderr.isatty():

        def line(done: int, total: int) -> None:
            if done == total or done * 10 // total > (done - 1) * 10 // total:
                print(f"{done} of {total} images", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    main()
