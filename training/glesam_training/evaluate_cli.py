"""Implement glesam-evaluate: measure a bundle or checkpoint, with and without its enhancer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app
from glesam_runtime.engine_options import DeviceOption
from glesam_runtime.errors import InputError
from glesam_runtime.hub import repository_of
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.verbosity import print_progress, shows_progress
from glesam_training.options import DataOptions

# Imported in the functions that need them: --help should not wait, and evaluating a bundle needs no
# torch.
if TYPE_CHECKING:
    from glesam_evaluation.features_plot import Features
    from glesam_evaluation.results import Results
    from glesam_evaluation.segmenters import Stages

app = make_app("Measure IoU, Dice, pixel accuracy and boundary IoU of a bundle or checkpoint.")

_REPORT, _JSON, _PLOT = "report.md", "report.json", "plot.png"
_QUALITY, _FEATURES = "quality.png", "features.png"
_CHECKPOINT, _MANIFEST = "checkpoint.json", "manifest.json"


def main() -> NoReturn:
    """Run the glesam-evaluate command."""
    run_app(app, "glesam-evaluate")


@app.command()
@expand_groups
def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A bundle folder, 'nano' for the built-in one, or a checkpoint: a packed "
            ".safetensors file, or a folder with checkpoint.json.",
        ),
    ],
    data: DataOptions,
    where: DeviceOption,
    prompts: Annotated[
        str, typer.Option(help="Comma-separated prompts: 1-point to 10-point, box, noise-box.")
    ] = "3-point",
    conditions: Annotated[
        str,
        typer.Option(
            help="Comma-separated conditions: clear, LQ-1, LQ-2, LQ-3, unseen (the fifteen "
            "degradations of RobustSeg), visibility (haze, low_contrast and darkness), or single "
            "ones, such as fog, haze, blur, noise and jpeg."
        ),
    ] = "clear,LQ-1,LQ-2,LQ-3,unseen",
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Use only the first N images."),
    ] = None,
    max_masks: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum objects per image, drawn by the seed.")
    ] = 10,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of degradations, prompts and objects.")
    ] = 0,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Recipe of LQ-1 to LQ-3: paper, released (the authors' training code) or "
            "released-test (their script for the test sets).",
        ),
    ] = "paper",
    empty: Annotated[
        int,
        typer.Option(
            min=0,
            max=1,
            help="IoU, Dice and boundary IoU of an empty mask against an empty truth. The authors' "
            "code counts 0.",
        ),
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help=f"Also write {_REPORT}, {_JSON} and {_PLOT} to this folder.",
        ),
    ] = None,
    figures: Annotated[
        bool,
        typer.Option(
            "--figures",
            help=f"With -o: also write {_QUALITY}, a density map of IoU over the images' quality "
            f"(the paper's Fig. 4), and {_FEATURES}, the latents of the first images as pictures "
            "(Figs. 2, 5 and 9).",
        ),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of tables.")
    ] = False,
) -> None:
    """Evaluate MODEL on DATA, with and without the enhancer.

    All segmenters get the same images and prompts, which the seed decides.
    """
    files = (_REPORT, _JSON, _PLOT, *((_QUALITY, _FEATURES) if figures else ()))
    if output is not None:
        _check_output(output, files)
    elif figures:
        raise InputError("--figures: needs a folder to write to; give -o DIR")
    _require_calibration()
    from glesam_evaluation.conditions import parse_conditions
    from glesam_evaluation.datasets.sample import printable
    from glesam_evaluation.features_plot import measure_features
    from glesam_evaluation.plot import require_matplotlib
    from glesam_evaluation.prompting import parse_prompt_kinds
    from glesam_evaluation.protocol import EvaluationPlan, evaluate
    from glesam_evaluation.results import Results, markdown
    from glesam_evaluation.segmenters import with_and_without

    plan = EvaluationPlan(
        parse_prompt_kinds(prompts),
        parse_conditions(conditions),
        seed,
        max_masks,
        limit,
        recipe,
        float(empty),
    )
    if output is not None:
        require_matplotlib()
    dataset = data.open()
    about, stages = _open_model(model, where.device)
    with _progress() as progress:
        rows = evaluate(with_and_without(stages), dataset, plan, progress)
    results = Results(printable(about), printable(data.data), seed, tuple(rows))
    if output is not None:
        features = measure_features(stages, dataset, plan) if figures else []
        _write(results, features, output, files)
    print(_as_json(results) if json else markdown(results), end="")
    if output is not None and not json:
        print(f"\n{output}: {', '.join(files)}")


def _open_model(model: str, device: str | None) -> tuple[str, Stages]:
    """Return a line that describes the model, and its stages."""
    path = Path(model)
    if model == "nano" or (path / _MANIFEST).is_file() or repository_of(model):
        return _open_bundle(None if model == "nano" else model, device)
    if (path / _CHECKPOINT).is_file() or (path.is_file() and path.suffix == ".safetensors"):
        return _open_checkpoint(path, device)
    if path.exists():
        raise InputError(
            f"{model}: neither a bundle (no {_MANIFEST}) nor a checkpoint (a packed .safetensors "
            f"file, or a folder with {_CHECKPOINT})"
        )
    raise InputError(f"{model}: no such file or folder; pass nano for the built-in bundle")


def _open_bundle(path: str | None, device: str | None) -> tuple[str, Stages]:
    from glesam_evaluation.results import describe_model
    from glesam_evaluation.segmenters import BundleStages
    from glesam_runtime.bundle import open_bundle

    bundle = open_bundle(path)
    model = bundle.manifest.model
    precisions = dict.fromkeys(stage.precision for stage in bundle.manifest.stages.values())
    name = "the built-in bundle" if path is None else f"bundle {path}"
    if bundle.snapshot is not None:
        name = f"bundle {bundle.snapshot.repository}@{bundle.snapshot.revision}"
    source = f"{name}, {'/'.join(precisions)}, sha256 {bundle.sha256[:12]}"
    about = describe_model(model.preset, model.unet, model.trained, source)
    return about, BundleStages(bundle, device=device)


def _open_checkpoint(path: Path, device: str | None) -> tuple[str, Stages]:
    try:
        from glesam_export.checkpoints.formats import open_checkpoint
        from glesam_training.reference_segmenters import ReferenceStages
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("glesam"):
            raise
        raise InputError(
            f"{path}: a checkpoint needs {error.name}, which is not installed: "
            "pip install 'glesam-deploy[training]'"
        ) from error
    from glesam_evaluation.results import describe_model

    checkpoint = open_checkpoint(path)
    about = describe_model(
        checkpoint.preset.name, checkpoint.unet.name, checkpoint.trained, f"checkpoint {path}"
    )
    return about, ReferenceStages(checkpoint, device)


def _require_calibration() -> None:
    """Check for OpenCV and scipy, which degradations and scenes need."""
    try:
        import glesam_evaluation.degrade  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("cv2", "scipy"):
            raise
        raise InputError(
            f"{error.name} is not installed: pip install 'glesam-deploy[calibration]'"
        ) from error


def _check_output(folder: Path, files: Sequence[str]) -> None:
    """Check that the reports can be written, before an hour is spent on measuring."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: is a file; pass a folder")
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise InputError(f"-o {folder}: a parent of this path is a file; choose another")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"-o {folder}: no permission to write in {existing}; choose another")
    for name in files:
        if (folder / name).is_dir():
            raise InputError(f"-o {folder}: {name} in it is a folder; choose another folder")


def _write(results: Results, features: list[Features], folder: Path, files: Sequence[str]) -> None:
    """Write the files: all of them or none."""
    from glesam_evaluation.features_plot import draw_features
    from glesam_evaluation.plot import draw
    from glesam_evaluation.quality_plot import draw_quality
    from glesam_evaluation.results import markdown
    from glesam_runtime.staging import staged_file

    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as staged:
        report, json, plot, *figures = (
            staged.enter_context(staged_file(folder / name)) for name in files
        )
        report.write_text(markdown(results), encoding="utf-8")
        json.write_text(_as_json(results), encoding="utf-8")
        draw(results, plot)
        if figures:
            draw_quality(results, figures[0])
            draw_features(features, results.model, figures[1])


def _as_json(results: Results) -> str:
    import json

    document = results.as_dict()
    rows = ",\n".join("    " + json.dumps(row) for row in document.pop("rows"))
    head = json.dumps(document, indent=2, allow_nan=False).removesuffix("\n}")
    return f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n'


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show the images done on stderr: a bar in a terminal, a line for each tenth in a log."""
    if not shows_progress():

        def line(done: int, total: int) -> None:
            if done == total or done * 10 // total > (done - 1) * 10 // total:
                print_progress(f"{done} of {total} images")

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    main()
