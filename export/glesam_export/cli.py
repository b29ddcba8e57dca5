"""The glesam-export command: turns a checkpoint into a verified bundle."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from glesam_export import options, weights
from glesam_export.engines import options as engine_options
from glesam_export.engines.plan import Plan
from glesam_export.families import family_of
from glesam_export.weight_options import WeightOptions
from glesam_runtime.console import make_app, run_app
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.option_groups import expand_groups

app = make_app("Fold a GleSAM checkpoint into three verified ONNX graphs.")

Images = Annotated[
    list[Path] | None,
    typer.Option("--image", help="Verify on this image instead of a procedural one; repeatable."),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback behind an error.")]


def _warn(words: str) -> None:
    """Print a warning to stderr."""
    typer.echo(f"warning: {words}", err=True)


def _show_version(asked: bool) -> None:
    """Print the version and exit."""
    if asked:
        from glesam_runtime import __version__

        print(f"glesam-export {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool | None,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = None,
) -> None:
    """Fold a GleSAM checkpoint into three verified ONNX graphs."""


@app.command("onnx")
@expand_groups
def export_onnx(
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write.")],
    given: WeightOptions,
    asked: options.GraphOptions,
    debug: Debug = False,
) -> None:
    """Export a checkpoint to an ONNX bundle and verify it against PyTorch."""
    _export(output, given, asked)
    typer.echo(f"wrote {output}")


def _export(output: Path, given: WeightOptions, asked: options.GraphOptions) -> None:
    """Export, verify, and print the parity table."""
    precision = options.one_precision(asked.precision, asked.flags)
    batch = options.batch_size(asked.batch)
    checkpoint = weights.make_checkpoint(given)
    if not checkpoint.trained:
        typer.echo(
            f"weights: {checkpoint.origin}, untrained; the masks will mean nothing", err=True
        )
    # Imported here: torch takes seconds, and --help and wrong options should not.
    from glesam_export import build, progress, report

    how = build.Options(
        precision, batch, asked.image or (), asked.allow_parity_failure, asked.auto_islands
    )
    manifest = build.build_bundle(checkpoint, output, how, progress.step, _warn)
    assert manifest.parity is not None, "build_bundle measures"
    typer.echo(report.parity_table(manifest.parity))


@app.command("verify")
@expand_groups
def verify_bundle(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    given: WeightOptions,
    image: Images = None,
    debug: Debug = False,
) -> None:
    """Compare a bundle with the PyTorch reference of the same weights."""
    from glesam_runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    checkpoint = weights.make_checkpoint(weights.for_bundle(given, opened.manifest))
    from glesam_export import progress, report
    from glesam_export.verify import latent_check, parity
    from glesam_export.verify.cases import make_cases
    from glesam_export.verify.reference_outputs import record_reference

    preset, family = checkpoint.preset, family_of(checkpoint.preset)
    for rules in ("preprocessing", "postprocessing", "coordinates"):
        if getattr(opened.manifest, rules) != getattr(family, rules)(preset):
            raise BundleError(f"{bundle}: its {rules!r} is not that of {preset.name}")
    cases = make_cases(preset, image or ())
    reference = record_reference(checkpoint, cases, progress.step)
    if found := latent_check.warning(checkpoint, cases, reference, progress.step):
        _warn(found)
    measured = parity.measure(opened, cases, reference, progress.step)
    typer.echo(report.parity_table(measured))
    parity.require(measured, str(bundle))


@app.command("info")
def info(
    files: Annotated[list[Path], typer.Argument(help="Checkpoint files and folders.")],
    debug: Debug = False,
) -> None:
    """Identify files and the presets they fit, and list what an export still needs."""
    from glesam_export.checkpoints.formats import identify, missing

    findings = [identify(path) for path in files]
    for finding in findings:
        typer.echo(f"{finding.path}: {finding.words}")
        for part in finding.lacks:
            typer.echo(f"  without {part}")
    for option in missing(findings):
        typer.echo(f"still to give: {option}")


@app.command("trt")
@expand_groups
def export_engines(
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write.")],
    asked_engine: engine_options.EngineOptions,
    given: WeightOptions,
    asked: options.GraphOptions,
    debug: Debug = False,
) -> None:
    """Compile a bundle, or export and compile a checkpoint, into TensorRT engines."""
    plan = engine_options.plan_of(asked_engine)
    if asked_engine.bundle is not None:
        clashing = given.given_weights or sorted(f"--{name}" for name in asked.flags)
        if clashing:
            raise InputError(f"--bundle and {clashing[0]}: a bundle has its weights and precision")
        _compile(asked_engine.bundle, output, plan)
        return
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "onnx"
        _export(onnx, given, asked)
        _compile(onnx, output, plan)


def _compile(source: Path, output: Path, plan: Plan) -> None:
    """Compile an ONNX bundle and print the table of its engines."""
    from glesam_export import progress
    from glesam_export.engines.bundle import compile_bundle
    from glesam_export.engines.report import engine_table
    from glesam_runtime.bundle import open_bundle

    manifest = compile_bundle(open_bundle(source), output, plan, progress.step)
    typer.echo(engine_table(manifest))
    typer.echo(f"wrote {output}; on its GPU: glesam-run --selftest --bundle {output}")


@app.command("refit")
def refit(
    engines: Annotated[Path, typer.Argument(help="Engines compiled with --strip-weights.")],
    bundle: Annotated[Path, typer.Option(help="ONNX bundle with the new weights.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write.")],
    debug: Debug = False,
) -> None:
    """Replace the weights of engines, for another LoRA or gamma, without compiling them again."""
    from glesam_export import progress
    from glesam_export.engines.refit import refit_bundle
    from glesam_runtime.bundle import open_bundle

    refit_bundle(open_bundle(engines), open_bundle(bundle), output, progress.step)
    typer.echo(f"wrote {output}; on its GPU: glesam-run --selftest --bundle {output}")


@app.command("debug")
def debug_stage(
    bundle: Annotated[Path, typer.Argument(help="ONNX bundle folder.")],
    stage: Annotated[
        Literal["encoder", "enhancer", "decoder"],
        typer.Option(help="Stage whose graph is compared."),
    ] = "encoder",
    against: Annotated[
        str,
        typer.Option(
            help="What to compare with: 'rounded' rounds every half-precision result of the same "
            "graph; 'tensorrt' and 'tensorrt-rtx' compile an engine for this GPU."
        ),
    ] = "rounded",
    top: Annotated[int, typer.Option(min=1, help="Number of tensors to show.")] = 20,
    debug: Debug = False,
) -> None:
    """Compare every tensor of a stage in float32 with an engine's tensor, or its rounded values."""
    from glesam_export.debug import compare_stage, table
    from glesam_runtime.bundle import open_bundle

    typer.echo(table(compare_stage(open_bundle(bundle), stage, against), top))


def main() -> None:
    """Run the `glesam-export` command."""
    # PyTorch reads this at its first allocation. It allocates tensors of hundreds of megabytes; in
    # small pages, clearing them takes a fifth of the time of ViT-B's reference.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    run_app(app, "glesam-export")
