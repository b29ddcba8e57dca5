"""Read --timestep, which takes one timestep or several: "999" or "1,100,400,999".

An export of several writes one enhancer that can run each of them. This module does not import
torch, so a wrong value is reported at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from glesam_runtime.errors import InputError
from glesam_runtime.manifest import MOST_LEVELS, TimestepLevel

if TYPE_CHECKING:
    from glesam_export.checkpoints import Checkpoint

LARGEST = 999
"""The last timestep of Stable Diffusion's noise schedule, which has 1000."""


class Timesteps(int):
    """Several timesteps. As a number it is the first one, the default of the export.

    Attributes:
        steps: all of them, in ascending order.
    """

    steps: tuple[int, ...]

    def __new__(cls, steps: Sequence[int]) -> Timesteps:
        """Take the first of the timesteps as the default."""
        made = super().__new__(cls, steps[0])
        made.steps = tuple(sorted(steps))
        return made

    def __str__(self) -> str:
        """Spell them as the option takes them, the default first."""
        return ",".join(map(str, (int(self), *(step for step in self.steps if step != self))))

    def __reduce__(self) -> tuple[type[Timesteps], tuple[list[int]]]:
        """Return how to make it again in another process."""
        return Timesteps, ([int(self), *(step for step in self.steps if step != self)],)


def parse_timesteps(text: str | int) -> int:
    """Return the number that the option gives, a `Timesteps` if it gives several.

    Raises:
        InputError: the text is no list of different timesteps.
    """
    if isinstance(text, int):  # a default
        return text
    if text.removeprefix("-").isdecimal():  # one timestep; the schedule decides about its range
        return int(text)
    parts = text.split(",")
    if not all(part.strip().isdecimal() and len(part) < 10 for part in parts):
        raise InputError(
            f"--timestep {text}: pass a number from 0 to {LARGEST}, or several with commas between "
            "them, such as 1,100,400,999"
        )
    steps = [int(part) for part in parts]
    if len(steps) > MOST_LEVELS:
        raise InputError(f"--timestep: {len(steps)} timesteps, more than {MOST_LEVELS}")
    for step in steps:
        if step > LARGEST:
            raise InputError(f"--timestep {text}: {step} is outside 0..{LARGEST}")
        if steps.count(step) > 1:
            raise InputError(f"--timestep {text}: {step} is named twice; leave out one of them")
    return Timesteps(steps)


def steps_of(value: object) -> tuple[int, ...]:
    """Return all timesteps of a `Timesteps`; none for other values."""
    return value.steps if isinstance(value, Timesteps) else ()


def add_levels(checkpoint: Checkpoint, steps: Sequence[int]) -> None:
    """Give a checkpoint the levels of several timesteps; its own must be one of them.

    Raises:
        CheckpointError: a timestep is outside the noise schedule.
    """
    from glesam_export.checkpoints.stable_diffusion import alpha_bar

    checkpoint.levels = tuple(
        TimestepLevel(step, alpha_bar(step, checkpoint.schedule, "the noise schedule"))
        for step in steps
    )
