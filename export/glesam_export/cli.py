"""glesam-export: a checkpoint in, a verified bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glesam_export import options, weights
from glesam_runtime.console import make_app, run_app
from glesam_runtime.errors import BundleError

app = make_app("Fold a GleSAM checkpoint into three verified ONNX graphs.")

WEIGHTS = "Weights"
Preset = Annotated[
    str | None,
    typer.Option(
        help="SAM: nano, sam_vit_b, _l, _h, or SAM 2: sam2_hiera_t, _s, _b+, _l, likewise sam2.1_. "
        "Default: what --sam fits."
    ),
]
UNet = Annotated[
    str | None,
    typer.Option(help="U-Net: nano, sd15, sd21. Default: what --sd fits, or the preset's."),
]
Saved = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        rich_help_panel=WEIGHTS,
        help="All weights in one piece: a folder from glesam-train, or a packed .safetensors.",
    ),
]
Sam = Annotated[
    Path | None,
    typer.Option(rich_help_panel=WEIGHTS, help="SAM's weights (.pth, .pt, .safetensors)."),
]
Sd = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Stable Diffusion: a diffusers folder, or its U-Net's weights with --unet-config.",
    ),
]
UNetConfig = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=WEIGHTS, help="config.json of a U-Net that is given as bare weights."
    ),
]
Lora = Annotated[
    Path | None, typer.Option(rich_help_panel=WEIGHTS, help="The U-Net's LoRA (.safetensors).")
]
PromptEmbeds = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Text embedding [1,77,D] (.npy, .safetensors). Default: the folder's encoder on ''.",
    ),
]
Gamma = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Adaption weight the LoRA was trained with: 5 in the paper, 3 or 5 in released code.",
    ),
]
Timestep = Annotated[
    int | None,
    typer.Option(
        rich_help_panel=WEIGHTS,
        help="Timestep the LoRA was trained with: 999 in the paper, 1 in released code.",
    ),
]
RandomWeights = Annotated[
    int | None,
    typer.Option(rich_help_panel=WEIGHTS, metavar="SEED", help="Random weights, for development."),
]
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
def export_onnx(
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle folder to write.")],
    preset: Preset = None,
    unet: UNet = None,
    saved: Saved = None,
    sam: Sam = None,
    sd: Sd = None,
    lora: Lora = None,
    prompt_embeds: PromptEmbeds = None,
    unet_config: UNetConfig = None,
    gamma: Gamma = None,
    timestep: Timestep = None,
    random_weights: RandomWeights = None,
    precision: Annotated[str | None, typer.Option(help="fp32, fp16 or bf16.")] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Same as --precision fp16.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Same as --precision bf16.")] = False,
    batch: Annotated[
        str, typer.Option(help="Images a call of encoder and enhancer: a number, or 'dynamic'.")
    ] = "1",
    image: Images = None,
    allow_parity_failure: Annotated[
        bool, typer.Option("--allow-parity-failure", help="Write a bundle outside its gate.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Export a checkpoint to an ONNX bundle and verify it against PyTorch."""
    one_precision, n = options.one_precision(precision, fp16, bf16), options.batch_size(batch)
    checkpoint = weights.make_checkpoint(
        weights.WeightOptions(
            *(preset, unet, sam, sd, lora, prompt_embeds, gamma, timestep, random_weights, saved),
            unet_config,
        )
    )
    if not checkpoint.trained:
        typer.echo(
            f"weights: {checkpoint.origin}, untrained; the masks will mean nothing", err=True
        )
    # Imported here: torch takes seconds, and --help and wrong options should not.
    from glesam_export import build, progress, report

    how = build.Options(one_precision, n, image or (), allow_parity_failure)
    manifest = build.build_bundle(checkpoint, output, how, progress.step, _warn)
    assert manifest.parity is not None, "build_bundle measures"
    typer.echo(report.parity_table(manifest.parity))
    typer.echo(f"wrote {output}")


@app.command("verify")
def verify_bundle(
    bundle: Annotated[Path, typer.Argument(help="Bundle folder.")],
    preset: Preset = None,
    unet: UNet = None,
    saved: Saved = None,
    sam: Sam = None,
    sd: Sd = None,
    lora: Lora = None,
    prompt_embeds: PromptEmbeds = None,
    unet_config: UNetConfig = None,
    gamma: Gamma = None,
    timestep: Timestep = None,
    random_weights: RandomWeights = None,
    image: Images = None,
    debug: Debug = False,
) -> None:
    """Hold a bundle against the PyTorch reference made of the same weights."""
    from glesam_runtime.bundle import open_bundle

    given = weights.WeightOptions(
        *(preset, unet, sam, sd, lora, prompt_embeds, gamma, timestep, random_weights, saved),
        unet_config,
    )
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


def main() -> None:
    """Entry point of `glesam-export`."""
    run_app(app, "glesam-export")
