"""Implement the commands of glesam-bench."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from glesam_benchmark import options
from glesam_export.weight_options import WeightOptions
from glesam_runtime.common_options import WithDefault, make_app
from glesam_runtime.console import run_app
from glesam_runtime.errors import BackendError, InputError, ParityError
from glesam_runtime.option_groups import expand_groups

# Imported in the functions that need them: neither --help nor a wrong option should wait. This
# process never imports torch; only the worker processes that measure it do.
if TYPE_CHECKING:
    from glesam_benchmark.contenders import Contender
    from glesam_benchmark.report_file import Draw
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import RequestedEngine

T = TypeVar("T")


class _Commands(WithDefault):
    """Make `glesam-bench BUNDLE ...` mean `glesam-bench run BUNDLE ...`."""

    default = "run"


app = make_app(
    "Measure a bundle's speed and memory next to PyTorch and plain ONNX exports.",
    commands=True,
    group=_Commands,
)


def main() -> NoReturn:
    """Run the glesam-bench command."""
    run_app(app, "glesam-bench")


@app.command("run")
@expand_groups
def run(
    engines: options.Engines,
    given: WeightOptions,
    bundle: options.BundlePath = "nano",
    rounds: options.Rounds = 5,
    repeats: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes per engine or peer.")
    ] = 1,
    peers: Annotated[
        bool,
        typer.Option("--peers", help="Also measure PyTorch and plain exports of the same weights."),
    ] = False,
    peer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Measure only this peer of --peers; repeatable."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="Also measure this bundle of the same model, such as bf16 or int8; repeatable.",
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder that keeps the plain exports for reuse. Default: a temporary folder.",
        ),
    ] = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Time a bundle's stages and the whole chain. This is the default command."""
    options.check_output(output)
    beside = peers or bool(peer)
    if not beside and (given.given_weights or work is not None):
        first = (given.given_weights or ["--work"])[0]
        raise InputError(f"{first}: only peers use it; add --peers, or leave it out")
    opened = options.open_bundle(bundle)
    from glesam_benchmark import contenders
    from glesam_benchmark.compare_contenders import ComparisonPlan, compare, failing_parity
    from glesam_benchmark.show_comparison import comparison_table, draw_comparison
    from glesam_export import weights
    from glesam_export.console_output import step

    others = [options.open_bundle(folder) for folder in variant or ()]
    measured = contenders.bundle_contenders(opened, engines.backend or (), engines.common)
    measured += contenders.variant_contenders(opened, others, engines.common)
    known = weights.for_bundle(given, opened.manifest) if beside else None
    if known is not None and known.timestep is not None:
        # Peers run the default timestep of a bundle that has several.
        known = replace(known, timestep=int(known.timestep))
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() if work is None else nullcontext(work) as folder:
        if known is not None:
            more, left_out = contenders.peer_contenders(
                peer or (), known, str(folder), engines.threads
            )
            measured += more
        plan = ComparisonPlan(opened, measured, known, rounds, repeats, engines.threads, left_out)
        found = compare(plan, step)
    _show(found, comparison_table(found), "bench", output, json, draw_comparison)
    if differing := failing_parity(found):
        raise ParityError("; ".join(differing))
    if found.failed:
        raise BackendError("; ".join(found.failed))


@app.command("growth")
@expand_groups
def growth(
    engines: options.Engines,
    bundle: options.BundlePath = "nano",
    rounds: options.Rounds = 5,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Measure how cost grows with prompts, points, image size and number of images."""
    options.check_output(output)
    opened = options.open_bundle(bundle)
    from glesam_benchmark import worker_jobs
    from glesam_benchmark.growth import Growth
    from glesam_benchmark.report_file import report_head
    from glesam_benchmark.show_growth import GrowthReport, draw_growth, growth_table

    def job(choice: RequestedEngine) -> worker_jobs.Job:
        return worker_jobs.Grow(str(opened.path), choice, rounds)

    answers = _each(opened, engines, job, Growth)
    found = GrowthReport(report_head(opened, engines.threads, rounds), answers)
    _show(found, growth_table(found), "growth", output, json, draw_growth)


@app.command("profile")
@expand_groups
def profile(
    engines: options.Engines,
    bundle: options.BundlePath = "nano",
    rounds: options.Rounds = 5,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="Number of node types and nodes to show.")
    ] = 10,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """Show the costliest node types and nodes of each stage, on OpenVINO and ONNX Runtime."""
    options.check_output(output)
    opened = options.open_bundle(bundle)
    from glesam_benchmark import worker_jobs
    from glesam_benchmark.profile import Profile, ProfileReport, profile_table
    from glesam_benchmark.report_file import report_head

    def job(choice: RequestedEngine) -> worker_jobs.Job:
        return worker_jobs.ProfileBundle(str(opened.path), choice, rounds)

    answers = _each(opened, engines, job, Profile)
    found = ProfileReport(report_head(opened, engines.threads, rounds), answers)
    _show(found, profile_table(found, top), "profile", output, json)


def _each(opened: Bundle, engines: options.Engines, job: Any, answer: type[T]) -> dict[str, T]:
    """Run a job for each requested engine, each in its own process."""
    from glesam_benchmark import contenders, worker_jobs
    from glesam_export.console_output import step

    asked: list[Contender] = contenders.bundle_contenders(
        opened, engines.backend or (), engines.common
    )
    answers = {}
    for contender in asked:
        assert isinstance(contender.runner, contenders.BundleRunner), (
            "without peers every contender runs a bundle"
        )
        with step(contender.title):
            answers[contender.name] = worker_jobs.run_job(job(contender.runner.choice), answer)
    return answers


def _show(
    found: Any, text: str, name: str, output: Path | None, as_json: bool, draw: Draw | None = None
) -> None:
    """Print a report, and write its files if a folder was given."""
    from glesam_benchmark import report_file

    print(report_file.as_json(found) if as_json else text, end="" if as_json else "\n")
    if output is not None:
        written = report_file.write_report(output, name, found, text, draw)
        if not as_json:
            print(f"\n{written}")


if __name__ == "__main__":
    main()
