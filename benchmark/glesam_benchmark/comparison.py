"""Define the types of `bench.json`, which holds the results of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from glesam_benchmark.report_file import ReportHead
from glesam_benchmark.timing import STEPS, ContenderRun, Step, Timing, summarize
from glesam_benchmark.worker_jobs import MachineRates


class Row(msgspec.Struct, frozen=True):
    """The figures of one contender; seconds and bytes."""

    name: str
    title: str
    ours: bool
    engine: dict[str, str]
    precision: str
    seconds: dict[Step, Timing]
    second_prompt_share: float
    """Time of a second prompt over the end-to-end time of the first."""
    rate_share: float | None
    """Share of the machine's measured matrix rate; None if the rate is unknown."""
    load_seconds: float
    warm_up_seconds: float
    """How much longer the first round took than a later one; torch.compile compiles in it."""
    peak_rss: int
    running_peak_rss: int | None
    difference: float
    """Relative L2 of the mask logits to those of the first row."""
    reference_difference: float
    """Relative L2 of the mask logits to the golden file's, which PyTorch computed in float32."""
    others: float | None
    """Largest share of all processors that other processes used during the rounds."""
    load_average: float | None


class Ratio(msgspec.Struct, frozen=True):
    """A peer compared with one of the bundle's rows."""

    ours: str
    peer: str
    speed: float
    """The peer's median end-to-end time over the bundle's: above 1 the bundle is faster."""
    memory: float
    """The bundle's peak memory over the peer's: below 1 the bundle takes less."""


class Comparison(msgspec.Struct, frozen=True):
    """All results of one comparison."""

    about: ReportHead
    machine: MachineRates | None
    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...]
    failed: tuple[str, ...]
    """One line for each peer that failed."""
    notes: tuple[str, ...]
    """Peers that were left out, and whether the machine was busy."""

    @property
    def ours(self) -> list[Row]:
        """Return the rows that run the bundle, fastest first."""
        return sorted((row for row in self.rows if row.ours), key=end_to_end)

    @property
    def peers(self) -> list[Row]:
        """Return the other rows, in the order they were measured."""
        return [row for row in self.rows if not row.ours]


def end_to_end(row: Row) -> float:
    """Return the median seconds from image to logits."""
    return row.seconds["end_to_end"].median


def timings_by_step(runs: Sequence[ContenderRun]) -> dict[Step, Timing]:
    """Summarize each step over all rounds of all runs."""
    rounds = [one for run in runs for one in run.rounds]
    return {step: summarize([one[step] for one in rounds]) for step in STEPS}


def ratios(rows: Sequence[Row]) -> tuple[Ratio, ...]:
    """Compare every peer with every row that runs the bundle."""
    return tuple(
        Ratio(
            mine.name,
            peer.name,
            end_to_end(peer) / end_to_end(mine),
            mine.peak_rss / peer.peak_rss,
        )
        for peer in rows
        if not peer.ours
        for mine in rows
        if mine.ours
    )
