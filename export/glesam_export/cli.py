"""Implements the commands of glesam-export."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from glesam_export import graph_options, weights
from glesam_export.engines.build_options import EngineBuildOptions, engine_option
from glesam_export.families import family_of
from glesam_export.graph_options import GraphOptions
from glesam_export.weight_options import WeightOptions
from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app
from glesam_runtime.errors import BundleError, InputError
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.terminal_text import print_line
from glesam_runtime.verbosity import print_note, print_warning

app = make_app(
    "Export a GleSAM checkpoint as three verified ONNX graphs, or as TensorRT engines.",
    commands=True,
)

RELEASED = (
    "a LoRA without an alpha is usually from the released GleSAM code, whose models are trained "
    "with --input released"
)

BUNDLE = "Bundle folder, or a Hugging Face repository ORG/NAME[@REVISION]."
ONNX_BUNDLE = f"ONNX bundle: a folder, or {BUNDLE.removeprefix('Bundle folder, or ')}"

Output = Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write.")]


@app.command("onnx")
@expand_groups
def export_onnx(output: Output, given: WeightOptions, graphs: GraphOptions) -> None:
    """Export a checkpoint to an ONNX bundle and verify it against PyTorch."""
    _export(output, given, graphs)
    typer.echo(f"wrote {output}")


@app.command("verify")
@expand_groups
def verify_bundle(
    bundle: Annotated[str, typer.Argument(help=BUNDLE)],
    given: WeightOptions,
    image: graph_options.Images = None,
) -> None:
    """Compare a bundle with the PyTorch reference of the same weights."""
    from glesam_runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    complete = weights.for_bundle(given, opened.manifest)
    checkpoint = weights.make_checkpoint(complete, print_warning, levels=True)
    from glesam_export.console_output import parity_table, step
    from glesam_export.verify import latent_check, parity
    from glesam_export.verify.cases import at_every_level, make_cases
    from glesam_export.verify.reference_outputs import record_reference

    preset, family = checkpoint.preset, family_of(checkpoint.preset)
    for rules in ("preprocessing", "postprocessing", "coordinates"):
        if getattr(opened.manifest, rules) != getattr(family, rules)(preset):
            raise BundleError(
                f"{bundle}: its {rules!r} differs from {preset.name}'s; export the bundle again"
            )
    pictures = make_cases(preset, image or ())
    cases = at_every_level(pictures, checkpoint)
    reference = record_reference(checkpoint, cases, step)
    own = reference[: len(pictures)]  # those at the checkpoint's own timestep
    if found := latent_check.warning(checkpoint, pictures, own, step):
        print_warning(found)
    measured = parity.measure(opened, cases, reference, step)
    typer.echo(parity_table(measured))
    parity.require(measured, str(bundle))


@app.command("info")
def info(
    files: Annotated[list[Path], typer.Argument(help="Checkpoint files and folders.")],
) -> None:
    """Identify checkpoint files, their preset, and what an export still needs."""
    from glesam_export.checkpoints.formats import from_released_code, identify, missing

    findings = [identify(path) for path in files]
    for finding in findings:
        print_line(f"{finding.path}: {finding.words}")
        for part in finding.lacks:
            print_line(f"  without {part}")
    for option in missing(findings):
        print_line(f"still needed: {option}")
    if from_released_code(findings):
        print_line(f"recommended: --input released; {RELEASED}")


@app.command("trt")
@expand_groups
def export_engines(
    *,
    output: Output,
    bundle: Annotated[
        str | None,
        engine_option(help_text=f"{ONNX_BUNDLE[:-1]}, to compile instead of a checkpoint."),
    ] = None,
    options: EngineBuildOptions,
    given: WeightOptions,
    graphs: GraphOptions,
) -> None:
    """Compile an ONNX bundle or a checkpoint into TensorRT engines."""
    if bundle is not None:
        clashing = given.given_weights or sorted(f"--{name}" for name in graphs.flags)
        if clashing:
            raise InputError(
                f"--bundle and {clashing[0]} exclude each other: a bundle already has weights and "
                "a precision"
            )
        _compile(bundle, output, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "onnx"
        _export(onnx, given, graphs)
        _compile(str(onnx), output, options)


@app.command("refit")
def refit(
    engines: Annotated[str, typer.Argument(help="Engine bundle compiled with --strip-weights.")],
    bundle: Annotated[str, typer.Option(help="ONNX bundle with the new weights.")],
    output: Output,
) -> None:
    """Replace the weights of engines (another LoRA or gamma) without compiling them again."""
    from glesam_export.console_output import step
    from glesam_export.engines.refit import refit_bundle
    from glesam_runtime.bundle import open_bundle

    refit_bundle(open_bundle(engines), open_bundle(bundle), output, step)
    _say_engines_are_written(output)


@app.command("web")
def export_site(
    bundle: Annotated[
        str | None,
        typer.Argument(metavar="[BUNDLE]", help=f"{ONNX_BUNDLE} Default: the built-in nano."),
    ] = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    engine_files: Annotated[
        Path, typer.Option(help="Folder 'dist' of the npm package onnxruntime-web.")
    ] = Path("node_modules/onnxruntime-web/dist"),
    max_mb: Annotated[
        int,
        typer.Option(
            min=1,
            help="Maximum size of the graphs in MB. A larger bundle gets the decoder only, and a "
            "server encodes the pictures.",
        ),
    ] = 2048,
    webgpu: Annotated[
        bool, typer.Option("--webgpu", help="Add the engine for WebGPU (27 MB).")
    ] = False,
) -> None:
    """Write a static site that segments pictures in the browser, without a server."""
    from glesam_export.web_site import write_site
    from glesam_runtime.bundle import open_bundle

    site = write_site(open_bundle(bundle), output, engine_files, max_mb, webgpu)
    if site.note is not None:
        print_note(site.note)
    typer.echo(f"wrote {output}, {site.bytes / 1e6:.1f} MB")


@app.command("debug")
def debug_stage(
    bundle: Annotated[str, typer.Argument(help=ONNX_BUNDLE)],
    stage: Annotated[
        Literal["encoder", "enhancer", "decoder"], typer.Option(help="Stage to compare.")
    ] = "encoder",
    against: Annotated[
        str,
        typer.Option(
            help="Half-precision side: 'rounded' (rounds every result on the CPU), or tensorrt or "
            "tensorrt-rtx (an engine on the GPU of this machine)."
        ),
    ] = "rounded",
    top: Annotated[int, typer.Option(min=1, help="Number of tensors to show.")] = 20,
) -> None:
    """Find the tensors of a stage that lose most in half precision."""
    from glesam_export.tensor_errors import compare_stage, error_table
    from glesam_runtime.bundle import open_bundle

    typer.echo(error_table(compare_stage(open_bundle(bundle), stage, against), top))


@app.command("interop")
def export_for_tool(
    bundle: Annotated[str, typer.Argument(help=ONNX_BUNDLE)],
    tool: Annotated[
        Literal["anylabeling", "labelme", "samexporter", "rembg", "meta"],
        typer.Option("--for", help="Tool that will run the files; meta is segment_anything."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="New folder for the files.")],
    masks: Annotated[
        Literal["one", "four"] | None,
        typer.Option(help="Masks per prompt, for SAM. Default: four for meta, else one."),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Number of points of every prompt, padding included; only for meta. "
            "Default: any number.",
        ),
    ] = None,
) -> None:
    """Write a bundle as ONNX files in the interface of an annotation tool, and check them."""
    from glesam_runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    from glesam_export.console_output import step
    from glesam_export.interop.write import write_for_tool

    written = write_for_tool(opened, output, tool, step, masks=masks, points=points)
    found = written.agreement
    print_line(
        f"compared with the bundle: relative L2 {found.encoder_relative_l2:.2e} (encoder) "
        f"{found.decoder_relative_l2:.2e} (decoder), mask IoU {found.mask_iou_mean:.6f} mean "
        f"{found.mask_iou_worst:.6f} worst"
    )
    print_line(f"wrote {output}; to use it, from that folder: {written.start}")


@app.command("push")
def push(
    bundle: Annotated[str, typer.Argument(help="Bundle folder.")],
    repository: Annotated[
        str, typer.Argument(metavar="ORG/NAME", help="Repository of the Hugging Face Hub.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private if it is new.")
    ] = False,
) -> None:
    """Upload a bundle to the Hugging Face Hub, with a model card made from its manifest."""
    from glesam_runtime.bundle import open_bundle

    opened = open_bundle(bundle)
    from glesam_export.console_output import step
    from glesam_export.hub_push import push_bundle

    pushed = push_bundle(opened, repository, step, private=private)
    print_line(f"uploaded; run it: glesam-run --bundle {pushed.repository}@{pushed.revision}")


def main() -> None:
    """Run `glesam-export`."""
    # PyTorch reads this at its first allocation and then uses huge pages. Tensors of hundreds of
    # megabytes come and go; with small pages, clearing them takes a fifth of the time of ViT-B's
    # reference.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    run_app(app, "glesam-export")


def _export(output: Path, given: WeightOptions, graphs: GraphOptions) -> None:
    """Export and verify a checkpoint, and print the parity table."""
    precision = graph_options.one_precision(graphs.precision, graphs.flags)
    batch = graph_options.batch_size(graphs.batch)
    all_levels = graph_options.verifies_all_levels(graphs.verify, precision)
    checkpoint = weights.make_checkpoint(given, print_warning, levels=True)
    if given.input is None and given.lora_alpha is not None:
        print_warning(
            f"--input was not given: this bundle gets {checkpoint.preset.input!r}; {RELEASED}"
        )
    if not checkpoint.trained:
        print_note(f"weights: {checkpoint.origin}, untrained; the masks will mean nothing")
    # Imported here: importing torch takes seconds, which --help and wrong options do not need.
    from glesam_export import build
    from glesam_export.console_output import parity_table, step
    from glesam_export.verify.cases import EXTREMES, LEVELS

    how = build.Options(
        precision,
        batch,
        graphs.image or (),
        graphs.allow_parity_failure,
        graphs.auto_islands,
        graphs.image_index,
        LEVELS if all_levels else EXTREMES,
        graphs.attention_nodes,
    )
    manifest = build.build_bundle(checkpoint, output, how, step, print_warning)
    assert manifest.parity is not None, "build_bundle measures it"
    typer.echo(parity_table(manifest.parity))


def _compile(source: str, output: Path, options: EngineBuildOptions) -> None:
    """Compile an ONNX bundle and print the table of its engines."""
    from glesam_export.console_output import engine_table, step
    from glesam_export.engines.bundle import compile_bundle
    from glesam_runtime.bundle import open_bundle

    manifest = compile_bundle(open_bundle(source), output, options, step)
    typer.echo(engine_table(manifest))
    _say_engines_are_written(output)


def _say_engines_are_written(output: Path) -> None:
    typer.echo(f"wrote {output}; verify it on its GPU: glesam-run --selftest --bundle {output}")
