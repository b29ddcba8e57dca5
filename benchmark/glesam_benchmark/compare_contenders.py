"""Measure every contender in turn, each in its own process, and collect the figures."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from glesam_benchmark import plain_graphs, worker_jobs
from glesam_benchmark.comparison import Comparison, Row, ratios, timings_by_step
from glesam_benchmark.contenders import VARIANT_OF, Contender, PlainRunner
from glesam_benchmark.report_file import report_head
from glesam_benchmark.timing import ContenderRun, golden_inputs
from glesam_export.weight_options import WeightOptions
from glesam_runtime.bundle import Bundle
from glesam_runtime.compare import GATES, relative_l2
from glesam_runtime.errors import BackendError

ShowStep = Callable[[str], AbstractContextManager[None]]
"""Announces a piece of long work while it runs."""

N = TypeVar("N", int, float)

MATRIX_SIDE = 4096
"""Side of the square matrices whose products are timed; larger ones are no faster."""
_COUNTING = ("torch", "diffusers", "peft", "segment_anything")
"""Modules needed to count a model's operations and to time matrix products."""
_BUSY = 0.1
"""Share of all processors used by other processes at which the report gets a note."""


@dataclass(frozen=True)
class ComparisonPlan:
    """The settings of a comparison.

    Attributes:
        bundle: the bundle under test.
        contenders: what to measure; those that run the bundle come first.
        weights: the peers' weights, completed by the bundle; None without peers.
        rounds: timed rounds per process, after one warm-up round.
        repeats: number of processes per contender.
        threads: CPU threads; None leaves the number to each engine.
        left_out: one line for each peer that cannot run here.
    """

    bundle: Bundle
    contenders: Sequence[Contender]
    weights: WeightOptions | None
    rounds: int
    repeats: int
    threads: int | None
    left_out: Sequence[str] = ()


@dataclass
class _Measured:
    """The runs of one contender, and the masks of its last run."""

    contender: Contender
    runs: list[ContenderRun]
    masks: NDArray[np.float32] | None = None
    failed: str = ""


def compare(plan: ComparisonPlan, step: ShowStep) -> Comparison:
    """Run the whole comparison, one heavy process at a time.

    Raises:
        GlesamError: a contender that runs the bundle fails, or an input cannot be used. A peer that
            fails becomes a line of `Comparison.failed` instead.
    """
    notes = list(plan.left_out)
    found = _machine(plan, notes, step)
    _export_plain(plan, step)
    measured = [_Measured(contender, []) for contender in plan.contenders]
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(plan.repeats):
            for each in measured:
                if not each.failed:
                    turn = f" ({repeat + 1} of {plan.repeats})" if plan.repeats > 1 else ""
                    with step(each.contender.title + turn):
                        _measure(plan, each, Path(folder) / "masks.npy")
    done = [each for each in measured if not each.failed]
    expected = golden_inputs(plan.bundle).expected
    first = done[0].masks
    assert first is not None, "a bundle that fails ends the comparison"
    rows = tuple(_row(plan.bundle, each, first, expected, found) for each in done)
    notes += _busy(rows, found)
    return Comparison(
        report_head(plan.bundle, plan.threads, plan.rounds * plan.repeats),
        found,
        rows,
        ratios(rows),
        tuple(f"{each.contender.title}: {each.failed}" for each in measured if each.failed),
        tuple(notes),
    )


def failing_parity(found: Comparison) -> list[str]:
    """Return one line for each float32 contender whose logits differ from the golden file's.

    Lower precisions are not judged: on random weights their difference means nothing, so it is only
    reported.
    """
    gate = GATES["fp32"].stage_relative_l2
    assert gate is not None, "float32 has a gate"
    typed = set(found.about.precisions.values())
    own = [r for r in found.rows if VARIANT_OF not in r.name]  # variants have their own precision
    judged = [r for r in own if r.precision == "fp32" and (typed == {"fp32"} or not r.ours)]
    return [
        f"{row.title}: its logits differ from the golden file's by {row.reference_difference:.2g}, "
        f"the limit is {gate:g}: it has other weights than the bundle, or a bug"
        for row in judged
        if not row.reference_difference <= gate
    ]


def _machine(
    plan: ComparisonPlan, notes: list[str], step: ShowStep
) -> worker_jobs.MachineRates | None:
    """Measure matrix rates and count operations, if the modules for it are installed."""
    missing = [name for name in _COUNTING if importlib.util.find_spec(name) is None]
    if missing:
        notes.append(
            f"{missing[0]} is not installed: the report has no share of the machine's matrix rate"
        )
        return None
    model = plan.bundle.manifest.model
    with step("rate of matrix products"):
        return worker_jobs.run_job(
            worker_jobs.MeasureMachine(model.preset, model.unet, plan.threads, MATRIX_SIDE),
            worker_jobs.MachineRates,
        )


def _export_plain(plan: ComparisonPlan, step: ShowStep) -> None:
    """Write the plain export once, for all peers that run it."""
    folders = [c.runner.folder for c in plan.contenders if isinstance(c.runner, PlainRunner)]
    if folders and not plain_graphs.holds_export(Path(folders[0]), plan.bundle):
        assert plan.weights is not None, "the command gives peers their weights"
        with step("plain export"):
            job = worker_jobs.ExportPlain(str(plan.bundle.path), plan.weights, folders[0])
            worker_jobs.run_job(job, worker_jobs.Done)


def _measure(plan: ComparisonPlan, each: _Measured, masks: Path) -> None:
    """Run one process of a contender."""
    job = worker_jobs.Measure(str(plan.bundle.path), each.contender.runner, plan.rounds, str(masks))
    try:
        each.runs.append(worker_jobs.run_job(job, ContenderRun))
    except BackendError as error:
        if each.contender.is_bundle:
            raise BackendError(f"{each.contender.title}: {error}") from error
        each.failed = str(error)
    else:
        each.masks = np.load(masks)


def _row(
    bundle: Bundle,
    each: _Measured,
    first: NDArray[np.float32],
    expected: NDArray[np.float32],
    found: worker_jobs.MachineRates | None,
) -> Row:
    """Return a contender's runs as a row of figures."""
    runs, contender = each.runs, each.contender
    seconds = timings_by_step(runs)
    whole = seconds["end_to_end"].median
    run = runs[0]
    rate = found.rates.get(run.precision) if found and run.engine.get("device") == "cpu" else None
    flops = sum(found.flops.values()) if found else 0
    assert each.masks is not None, "failed contenders have no row"
    return Row(
        contender.name,
        _title(contender, run),
        contender.is_bundle,
        run.engine,
        run.precision,
        seconds,
        seconds["second_prompt"].median / whole,
        flops / (whole * rate) if rate else None,
        run.load_seconds,
        max(0.0, run.first_seconds - whole - seconds["second_prompt"].median),
        max(r.peak_rss for r in runs),
        _most([r.running_peak_rss for r in runs]),
        relative_l2(each.masks, first),
        relative_l2(each.masks, expected),
        _most([r.others for r in runs]),
        _most([r.load_average for r in runs]),
    )


def _title(contender: Contender, run: ContenderRun) -> str:
    """Return the row's title; for a bundle it names the engine and precision that really ran."""
    if not contender.is_bundle:
        return contender.title
    backend, _, variant = contender.name.partition(VARIANT_OF)
    chosen = f", {variant}" if variant else " (auto)" if backend == "auto" else ""
    return f"glesam-deploy, {run.engine['engine']} {run.precision}{chosen}"


def _busy(rows: Sequence[Row], found: worker_jobs.MachineRates | None) -> list[str]:
    """Return a note if other processes took a large share of the processors."""
    shares = {row.title: row.others or 0.0 for row in rows}
    if found is not None:
        shares["matrix products"] = found.others or 0.0
    worst = max(shares, key=lambda name: shares[name])
    if shares[worst] < _BUSY:
        return []
    return [
        f"the machine was busy: other processes used up to {shares[worst]:.0%} of the processors "
        f"({worst}); measure again when it is idle"
    ]


def _most(values: Sequence[N | None]) -> N | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
