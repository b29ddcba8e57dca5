"""How many processes prepare examples, where it is left to the machine."""

from __future__ import annotations

import os

from accelerate import PartialState


def chosen(wanted: int | None) -> int:
    """The number of a plan's worker processes.

    A CPU that trains has no core to spare: a worker takes more from it than it saves. A GPU waits
    for examples otherwise; all cores but one make them, shared by the processes that train.

    Args:
        wanted: a number, or None for what suits the machine.
    """
    if wanted is not None:
        return wanted
    state = PartialState()
    if state.device.type == "cpu":
        return 0
    cores = os.cpu_count() or 2
    return max(1, (cores - 1) // int(state.num_processes))
