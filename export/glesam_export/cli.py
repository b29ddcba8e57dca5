"""glesam-export: a checkpoint in, a verified bundle out."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from glesam_export import options, weights
from glesam_export.engines import options as engine_options
from glesam_export.engines.plan import Plan
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
    typer.echo(f"warning: {words}", err=True)


def _show_version(asked: bool) -> None:
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
    precision, batch = (
        options.one_precision(asked.precision, asked.flags),
        options.batch_size(asked.batch),
    )
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
    """Hold a bundle against the PyTorch reference made of the same weights."""
    from glesam_runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    checkpoint = weights.make_checkpoint(weights.for_bundle(given, opened.manifest))
    from glesam_export import contract, plausible, progress, record, report, verify
    from glesam_export.cases import make_cases

    for rules in ("preprocessing", "postprocessing", "coordinates"):
        if getattr(opened.manifest, rules) != getattr(contract, rules)(checkpoint.preset):
            raise BundleError(f"{bundle}: its {rules!r} is not that of {checkpoint.preset.name}")
    cases = make_cases(checkpoint.preset, image or ())
    reference = record.record_reference(checkpoint, cases, progress.step)
    if found := plausible.warning(checkpoint, cases, reference, progress.step):
        _warn(found)
    parity = verify.measure(opened, cases, reference, progress.step)
    typer.echo(report.parity_table(parity))
    verify.require(parity, str(bundle))


@app.command("info")
def info(
    files: Annotated[list[Path], typer.Argument(help="Checkpoint files and folders.")],
    debug: Debug = False,
) -> None:
    """Say what files are, which preset they fit, and what is still missing for an export."""
    from glesam_export.checkpoints.identify import identify
    from glesam_export.checkpoints.needs import missing

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
    """Compile a bundle, or a checkpoint in one go, into TensorRT engines."""
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
    """Compile an ONNX bundle and say what was made."""
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
    """Give engines other weights, of another LoRA or gamma, without compiling them again."""
    from glesam_export import progress
    from glesam_export.engines.refit import refit_bundle
    from glesam_runtime.bundle import open_bundle

    refit_bundle(open_bundle(engines), open_bundle(bundle), output, progress.step)
    typer.echo(f"wrote {output}; on its GPU: glesam-run --selftest --bundle {output}")


@app.command("debug")
def debug_stage(
    bundle: Annotated[Path, typer.Argument(help="ONNX bundle folder.")],
    stage: Annotated[
        Literal["encoder", "enhancer", "decoder"], typer.Option(help="Which graph.")
    ] = "encoder",
    against: Annotated[
        str,
        typer.Option(
            help="'rounded', the graph with every half-precision result rounded, or an engine for "
            "the GPU at hand: tensorrt, tensorrt-rtx."
        ),
    ] = "rounded",
    top: Annotated[int, typer.Option(min=1, help="How many tensors to show.")] = 20,
    debug: Debug = False,
) -> None:
    """Compare every tensor of a stage in float32 with an engine's, or with its rounded values."""
    from glesam_export.debug import compare_stage, table
    from glesam_runtime.bundle import open_bundle

    typer.echo(table(compare_stage(open_bundle(bundle), stage, against), top))


def main() -> None:
    """Entry point of `glesam-export`."""
    # PyTorch asks at its first allocation. Tensors of hundreds of megabytes come and go, and in
    # small pages a fifth of the time of ViT-B's reference goes into clearing them.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    run_app(app, "glesam-export")
