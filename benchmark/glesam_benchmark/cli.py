"""glesam-bench: how fast a bundle is, and what else there is."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from glesam_benchmark import options
from glesam_export.weight_options import WeightOptions
from glesam_runtime.console import WithDefault, run_app
from glesam_runtime.errors import BackendError, InputError, ParityError
from glesam_runtime.option_groups import expand_groups

# Imported where used: `--help` needs nothing of it, and a wrong option is told at once. Torch is
# never imported here, only in the processes that measure it.
if TYPE_CHECKING:
    from glesam_benchmark.contenders import Contender
    from glesam_benchmark.report import Draw
    from glesam_runtime.bundle import Bundle
    from glesam_runtime.engine_options import RequestedEngine

T = TypeVar("T")


class _Commands(WithDefault):
    """`glesam-bench BUNDLE ...` is `glesam-bench run BUNDLE ...`."""

    default = "run"


app = typer.Typer(
    help="Measure a bundle's speed and memory, beside what a user would run instead.",
    cls=_Commands,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> NoReturn:
    """The glesam-bench command."""
    run_app(app, "glesam-bench")


@app.command("run")
@expand_groups
def run(
    engines: options.Engines,
    given: WeightOptions,
    bundle: options.BundlePath = "nano",
    rounds: options.Rounds = 5,
    repeats: Annotated[
        int, typer.Option(min=1, metavar="N", help="Turns of every contender, a process each.")
    ] = 1,
    peers: Annotated[
        bool, typer.Option("--peers", help="PyTorch and plain exports of the same weights, too.")
    ] = False,
    peer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this one of --peers; repeatable."),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR", help="The same model as another bundle, bf16 or int8, too; repeatable."
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep the plain exports here, for the next time."),
    ] = None,
    output: options.Output = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Time a bundle's stages and the whole. The default command: its name may be left out."""
    options.check_output(output)
    beside = peers or bool(peer)
    if not beside and (given.given_weights or work is not None):
        first = (given.given_weights or ["--work"])[0]
        raise InputError(f"{first}: is for peers; add --peers, or leave it out")
    opened = options.open_bundle(bundle)
    from glesam_benchmark import contenders
    from glesam_benchmark import run as running
    from glesam_benchmark.chart import draw
    from glesam_benchmark.table import table
    from glesam_export import weights
    from glesam_export.progress import step

    others = [options.open_bundle(folder) for folder in variant or ()]
    measured = contenders.ours(opened, engines.backend or (), engines.common)
    measured += contenders.variants(opened, others, engines.common)
    known = weights.for_bundle(given, opened.manifest) if beside else None
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() if work is None else nullcontext(work) as folder:
        if known is not None:
            more, left_out = contenders.peers(peer or (), known, str(folder), engines.threads)
            measured += more
        plan = running.Plan(opened, measured, known, rounds, repeats, engines.threads, left_out)
        found = running.benchmark(plan, step)
    _show(found, table(found), "bench", output, json, draw)
    if differing := running.differing(found):
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
    debug: options.Debug = False,
) -> None:
    """How cost grows with prompts, points, image size and the number of images."""
    options.check_output(output)
    opened = options.open_bundle(bundle)
    from glesam_benchmark import jobs
    from glesam_benchmark.about import about
    from glesam_benchmark.growth import Growth
    from glesam_benchmark.growth_report import GrowthReport, draw, table

    def job(choice: RequestedEngine) -> jobs.Job:
        return jobs.Grow(str(opened.path), choice, rounds)

    answers = _each(opened, engines, job, Growth)
    found = GrowthReport(about(opened, engines.threads, rounds), answers)
    _show(found, table(found), "growth", output, json, draw)


@app.command("profile")
@expand_groups
def profile(
    engines: options.Engines,
    bundle: options.BundlePath = "nano",
    rounds: options.Rounds = 5,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Node types and nodes shown.")] = 10,
    output: options.Output = None,
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """The costliest node types and nodes of each stage, on OpenVINO and ONNX Runtime."""
    options.check_output(output)
    opened = options.open_bundle(bundle)
    from glesam_benchmark import jobs
    from glesam_benchmark.about import about
    from glesam_benchmark.profile import Profile
    from glesam_benchmark.profile_report import ProfileReport, table

    def job(choice: RequestedEngine) -> jobs.Job:
        return jobs.ProfileBundle(str(opened.path), choice, rounds)

    answers = _each(opened, engines, job, Profile)
    found = ProfileReport(about(opened, engines.threads, rounds), answers)
    _show(found, table(found, top), "profile", output, json)


def _each(opened: Bundle, engines: options.Engines, job: Any, answer: type[T]) -> dict[str, T]:
    """A job for each engine asked for, in a process of its own."""
    from glesam_benchmark import contenders, process
    from glesam_export.progress import step

    asked: list[Contender] = contenders.ours(opened, engines.backend or (), engines.common)
    answers = {}
    for contender in asked:
        assert isinstance(contender.runner, contenders.Ours), "no peers were asked for"
        with step(contender.title):
            answers[contender.name] = process.run(job(contender.runner.choice), answer)
    return answers


def _show(
    found: Any, text: str, name: str, output: Path | None, as_json: bool, draw: Draw | None = None
) -> None:
    """Print a report, and write it where that was asked for."""
    from glesam_benchmark import report

    print(report.as_json(found) if as_json else text, end="" if as_json else "\n")
    if output is not None:
        written = report.write(output, name, found, text, draw)
        if not as_json:
            print(f"\n{written}")


if __name__ == "__main__":
    main()
