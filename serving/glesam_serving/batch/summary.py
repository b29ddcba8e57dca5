"""Count what a run did, show its progress, and print a summary."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec

from glesam_runtime.terminal_text import print_line
from glesam_runtime.verbosity import shows_progress

_STAGES = ("read", "encode", "decode", "write")


@dataclass
class Summary:
    """The counts of a run."""

    total: int
    """Images that are to be done, without those of earlier runs."""
    earlier: int
    """Images that earlier runs wrote."""
    actors: int
    images: int = 0
    masks: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Images that failed, by reason without the image's name."""
    seconds: Counter[str] = field(default_factory=Counter)
    """Seconds of work by stage, of all processes together."""
    _start: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.time)
    _first: float = math.inf
    """The times of day of the start, and of the first image in an encoder."""
    _shown: float = 0.0

    def add(self, chunk: dict[str, Any]) -> None:
        """Count a chunk, and show the progress on a terminal."""
        now = time.monotonic()
        self._first = min(self._first, chunk["encoded_at"])
        self.images += chunk["images"]
        self.masks += chunk["masks"]
        for error in msgspec.json.decode(chunk["errors"], type=list[str]):
            self.failed[_reason(error)] += 1
        self.seconds.update(msgspec.json.decode(chunk["seconds"], type=dict[str, float]))
        if shows_progress() and now - self._shown > 0.5:
            self._shown = now
            left = (self.total - self.images) / max(self.rate, 1e-9)
            text = (
                f"{self.images} of {self.total} images  {self.rate:.1f} images/s  "
                f"{_spell(left)} left"
            )
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    @property
    def rate(self) -> float:
        """Return images per second since the start."""
        return self.images / max(time.monotonic() - self._start, 1e-9)

    def finish(self) -> dict[str, Any]:
        """End the line of progress, and return the summary for --json."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        seconds = time.monotonic() - self._start
        return {
            "images": self.images,
            "earlier": self.earlier,
            "masks": self.masks,
            "failed": dict(self.failed.most_common()),
            "seconds": round(seconds, 3),
            "start_seconds": round(max(0.0, min(self._first - self._began, seconds)), 3),
            "images_per_second": round(self.images / max(seconds, 1e-9), 3),
            "stage_seconds": {stage: round(self.seconds[stage], 3) for stage in _STAGES},
            "encoder_busy": round(self.seconds["encode"] / max(seconds, 1e-9) / self.actors, 3),
        }


def print_summary(summary: dict[str, Any]) -> None:
    """Print the summary of a run."""
    earlier = f" ({summary['earlier']} were done before)" if summary["earlier"] else ""
    print_line(
        f"{summary['images']} images{earlier}, {summary['masks']} masks in "
        f"{_spell(summary['seconds'])}: {summary['images_per_second']:.1f} images/s; "
        f"{_spell(summary['start_seconds'])} of it until the first image was encoded"
    )
    stages = ", ".join(f"{name} {each:.1f} s" for name, each in summary["stage_seconds"].items())
    print_line(f"  work: {stages}; encoders busy {summary['encoder_busy']:.0%}")
    for reason, count in summary["failed"].items():
        print_line(f"  failed: {count} x {reason}")


def _spell(seconds: float) -> str:
    """Return a time as 12 s, 3:04 min or 5:06 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02} min"
    return f"{minutes // 60}:{minutes % 60:02} h"


def _reason(error: str) -> str:
    """Return an error without the image that it starts with, so that equal reasons are counted."""
    _, colon, reason = error.partition(": ")
    return reason if colon else error
