"""How a command line asks for engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from glesam_export.engines.plan import Plan, family_named, profile_of, workspace_bytes

ENGINES = "Engines"


def _option(*names: str, help_text: str, metavar: str | None = None) -> typer.models.OptionInfo:
    """An option under the heading of this group."""
    option: typer.models.OptionInfo = typer.Option(
        *names, help=help_text, metavar=metavar, rich_help_panel=ENGINES
    )
    return option


@dataclass(frozen=True)
class EngineOptions:
    """What to compile and for which GPUs."""

    bundle: Annotated[
        Path | None,
        _option(help_text="ONNX bundle to compile, instead of a checkpoint."),
    ] = None
    engine: Annotated[
        str,
        _option(
            help_text="tensorrt (data-centre and Jetson GPUs, built on the GPU they are for) or "
            "tensorrt-rtx (RTX GPUs, built anywhere)."
        ),
    ] = "tensorrt"
    compute_capability: Annotated[
        list[str] | None,
        _option(
            metavar="M.N",
            help_text="GPU to compile for without one at hand, 8.9 or 12.0; repeatable. "
            "tensorrt-rtx only.",
        ),
    ] = None
    profile: Annotated[
        list[str] | None,
        _option(
            metavar="AXIS=MIN:OPT:MAX",
            help_text="Sizes of a free axis: images N, prompts B, points P; repeatable. "
            "Default: N=1:1:8 B=1:1:64 P=1:2:16.",
        ),
    ] = None
    workspace: Annotated[
        float | None,
        _option(metavar="GIB", help_text="GPU memory that kernels may use as scratch."),
    ] = None
    builder_optimization_level: Annotated[
        int | None,
        typer.Option(
            min=0, max=5, rich_help_panel=ENGINES, help="0 (quick) to 5 (all that can be tried)."
        ),
    ] = None
    hardware_compatibility: Annotated[
        Literal["none", "same_compute_capability", "ampere_plus"],
        _option(help_text="Other GPUs that the engines shall run on, at some cost in speed."),
    ] = "none"
    version_compatible: Annotated[
        bool,
        _option("--version-compatible", help_text="Let later versions of TensorRT run them too."),
    ] = False
    strip_weights: Annotated[
        bool,
        _option(
            "--strip-weights",
            help_text="Leave the weights beside the engines: glesam-export refit then gives them "
            "others, of another LoRA or gamma, without a rebuild.",
        ),
    ] = False
    timing_cache: Annotated[
        Path | None,
        _option(help_text="File of measured kernels, read and added to: quicker builds."),
    ] = None


def plan_of(asked: EngineOptions) -> Plan:
    """The plan that is asked for.

    Raises:
        InputError: an option that cannot be used as it is.
    """
    return Plan(
        family=family_named(asked.engine),
        capabilities=tuple(dict.fromkeys(asked.compute_capability or ())),
        profile=profile_of(asked.profile or ()),
        workspace=workspace_bytes(asked.workspace),
        optimization_level=asked.builder_optimization_level,
        hardware_compatibility=asked.hardware_compatibility,
        version_compatible=asked.version_compatible,
        strip=asked.strip_weights,
        timing_cache=asked.timing_cache,
    )
