"""What a benchmark found: the types of its JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from glesam_benchmark.report_file import ReportHead
from glesam_benchmark.timing import STEPS, ContenderRun, Step, Timing, summarize
from glesam_benchmark.worker_jobs import MachineRates


class Row(msgspec.Struct, frozen=True):
    """A contender. Seconds, bytes."""

    name: str
    title: str
    ours: bool
    engine: dict[str, str]
    precision: str
    seconds: dict[Step, Timing]
    second_prompt_share: float
    """Of a second prompt, in the time of the first end to end."""
    rate_share: float | None
    """Of the machine's measured rate of matrix products; None where there is no such rate."""
    load_seconds: float
    warm_up_seconds: float
    """What the first round took beyond a later one: compiling, of torch.compile."""
    peak_rss: int
    running_peak_rss: int | None
    difference: float
    """Relative L2 of the masks' logits to those of our first."""
    reference_difference: float
    """The same to the golden file's, which PyTorch computed in float32 at the export."""
    others: float | None
    """Share of all processors' time that other processes had during the rounds, the worst."""
    load_average: float | None


class Ratio(msgspec.Struct, frozen=True):
    """A peer beside one of ours."""

    ours: str
    peer: str
    speed: float
    """Its median end to end over ours: above 1 ours is faster."""
    memory: float
    """Our peak over its peak: below 1 ours takes less."""


class Comparison(msgspec.Struct, frozen=True):
    """Everything."""

    about: ReportHead
    machine: MachineRates | None
    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...]
    failed: tuple[str, ...]
    """A line on each peer that did not run to its end."""
    notes: tuple[str, ...]
    """Who was left out, whether the machine was busy."""

    @property
    def ours(self) -> list[Row]:
        """Our rows, the fastest first."""
        return sorted((row for row in self.rows if row.ours), key=end_to_end)

    @property
    def peers(self) -> list[Row]:
        """The others, in the order they were measured."""
        return [row for row in self.rows if not row.ours]


def end_to_end(row: Row) -> float:
    """Median seconds from image to logits."""
    return row.seconds["end_to_end"].median


def timings_by_step(runs: Sequence[ContenderRun]) -> dict[Step, Timing]:
    """Timing over the rounds of every repeat."""
    rounds = [one for run in runs for one in run.rounds]
    return {step: summarize([one[step] for one in rounds]) for step in STEPS}


def ratios(rows: Sequence[Row]) -> tuple[Ratio, ...]:
    """Every peer beside each of ours."""
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
