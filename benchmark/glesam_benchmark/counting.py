"""What an engine that counts is to the profile."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float32]]
"""Tensors by name."""


class Node(msgspec.Struct, frozen=True):
    """One node of the compiled graph; seconds of one run, the mean."""

    name: str
    type: str
    kernel: str
    """The engine's name of what computes it; empty where it does not say."""
    seconds: float


class Counted(Protocol):
    """A graph whose engine counts."""

    def run(self, inputs: Arrays) -> None:
        """Run it once."""

    def nodes(self) -> list[Node]:
        """What each node took, over all runs but the first."""
