"""Check what the options of glesam-run name, before a model is loaded.

Options that do not go together, prompts and images: what is wrong with them is known within
milliseconds, and loading a model takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from glesam_runtime.console import report
from glesam_runtime.errors import InputError
from glesam_runtime.input_paths import STANDARD_INPUT

if TYPE_CHECKING:
    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.input_images import InputImage
    from glesam_runtime.prompt_requests import PromptRequest
    from glesam_runtime.run_options import ImageOptions, OutputOptions, PromptOptions


def check_combination(
    source: ImageOptions,
    asked: PromptOptions,
    out: OutputOptions,
    parameters: Parameters | None,
    mask_files: bool,
    demo: bool,
    selftest: bool,
    timestep: int | None,
) -> None:
    """Refuse options that do not go together."""
    if demo or selftest:
        name = "--demo" if demo else "--selftest"
        if timestep is not None and selftest:
            raise InputError("--selftest tests every timestep; leave out --timestep")
        if source.images or asked.given or parameters or (demo and selftest):
            raise InputError(f"{name} takes no images and no prompts; leave them out")
        if demo and out.no_files:
            raise InputError("--demo writes files; leave out --no-files")
    if parameters and (asked.given or asked.multimask):
        raise InputError(
            "--everything takes no --points, --box, --prompts or --multimask, because it prompts a "
            "grid of points; leave them out, or leave out --everything"
        )
    if parameters and asked.prompt_batch:
        raise InputError(
            "--prompt-batch does not apply to --everything; use --points-per-batch instead"
        )
    if mask_files and out.no_files:
        raise InputError("--mask-files and --no-files exclude each other; leave out one")
    if str(asked.prompts) in STANDARD_INPUT and STANDARD_INPUT & set(source.images or ()):
        raise InputError("-: standard input holds an image or prompts, not both; use a file")


def requests_of(asked: PromptOptions, prompts: Path | None) -> list[PromptRequest]:
    """Return the prompts that the options give; there must be at least one."""
    from glesam_runtime import prompt_requests

    requests = prompt_requests.from_options(asked.points or [], asked.box or [])
    if prompts is not None:
        requests += prompt_requests.from_file(prompts)
    if not requests:
        raise InputError("no prompt: give --points, --box, --prompts or --everything")
    prompt_requests.check_without_image(requests)
    return requests


def find(
    arguments: list[str] | None,
    recursive: bool,
    requests: Sequence[PromptRequest],
    *,
    limited: bool,
) -> list[InputImage]:
    """Return the images. Report what is wrong with them as far as it is known without a model.

    Several images may fail one by one, so only a single one is checked by its header. With
    `limited` it must not exceed the limits for images that are read whole.
    """
    if not arguments:
        raise InputError(
            "no image: name at least one file, or try --demo (--help shows the options)"
        )
    from glesam_runtime.input_images import find_images

    images = find_images(arguments, recursive)
    problems = [image.early_problem() for image in images]
    if all(problems):
        for problem in problems:
            report(str(problem))
        raise typer.Exit(InputError.exit_code)
    if len(images) == 1 and (size := images[0].size(limited)):
        from glesam_runtime.prompt_requests import check_size

        check_size(requests, size, str(images[0].path))
    return images
