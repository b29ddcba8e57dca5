"""Implement glesam-triton: write a Triton model repository from a bundle."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app
from glesam_runtime.option_groups import expand_groups
from glesam_runtime.run_options import EnhanceOptions
from glesam_runtime.terminal_text import print_line

app = make_app("Write a model repository for NVIDIA Triton Inference Server.")


class Stages(str, Enum):
    """Who runs the graphs."""

    RUNTIME = "runtime"
    TRITON = "triton"


class OnnxBackend(str, Enum):
    """Triton's backend for ONNX graphs."""

    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"


class Device(str, Enum):
    """Where the models run."""

    CPU = "cpu"
    GPU = "gpu"


def main() -> NoReturn:
    """Run the glesam-triton command."""
    run_app(app, "glesam-triton")


@app.command()
@expand_groups
def write(
    enhancing: EnhanceOptions,
    bundle: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE", help="Bundle folder, a Hugging Face repository ORG/NAME, or nano."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the repository.")
    ],
    stages: Annotated[
        Stages,
        typer.Option(
            help="triton writes each stage as a model of its own, for Triton's ONNX Runtime, "
            "OpenVINO or TensorRT backend. runtime runs them inside the model in Python."
        ),
    ] = Stages.TRITON,
    onnx_backend: Annotated[
        OnnxBackend, typer.Option(help="Triton's backend for ONNX graphs.")
    ] = OnnxBackend.ONNXRUNTIME,
    device: Annotated[Device, typer.Option(help="Where the models run.")] = Device.GPU,
    instances: Annotated[
        int, typer.Option(min=1, metavar="N", help="Copies of each model that run together.")
    ] = 1,
    cache: Annotated[
        int,
        typer.Option(
            min=1, metavar="MIB", help="Memory for embeddings of images, per copy, in MiB."
        ),
    ] = 1024,
) -> None:
    """Write BUNDLE into the model repository as its next version.

    glesam takes images and prompts and returns masks. glesam_everything finds
    all masks and sends one response for each. Triton needs its Python backend
    and this package in the environment of that backend.
    """
    from glesam_runtime.bundle import open_bundle
    from glesam_runtime.enhancing import Enhancing
    from glesam_runtime.timestep_levels import asked_timestep
    from glesam_serving.triton.repository import Wanted, write_repository

    opened = open_bundle(None if bundle == "nano" and not Path(bundle).exists() else bundle)
    how = Enhancing.of(opened, enhancing.mode())
    wanted = Wanted(
        stages is Stages.TRITON,
        onnx_backend.value,
        device.value,
        instances,
        cache,
        how.mode,
        asked_timestep(opened.manifest, enhancing.timestep, how.may_enhance),
    )
    version = write_repository(opened, output, wanted)
    print_line(f"{output}  version {version}")
