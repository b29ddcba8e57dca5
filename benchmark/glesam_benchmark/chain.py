"""What is timed: the three stages of any contender, one call each."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from glesam_benchmark import machine
from glesam_benchmark.inputs import Inputs, Prompt

Step = Literal["encoder", "enhancer", "decoder", "end_to_end", "second_prompt"]
STEPS: tuple[Step, ...] = get_args(Step)
"""`end_to_end` is image to logits, the first three together; `second_prompt` is the decoder once
more, on the image that is encoded."""


class Chain(Protocol):
    """A contender, loaded. Each call returns when its result is there."""

    @property
    def engine(self) -> Mapping[str, str]:
        """What runs, with its version."""

    @property
    def precision(self) -> str:
        """What it computes in: "fp32", "bf16" and so on."""

    def encode(self, image: NDArray[np.float32]) -> Any:
        """[1, 3, S, S] -> features."""

    def enhance(self, features: Any) -> Any:
        """Features with z_L -> features with z_H."""

    def decode(self, features: Any, prompt: Prompt) -> NDArray[np.float32]:
        """One prompt -> `low_res_masks` [1, 4, S/4, S/4] on the host."""


class Run(msgspec.Struct, frozen=True):
    """A contender as measured in its own process. Seconds, bytes."""

    engine: dict[str, str]
    precision: str
    load_seconds: float
    """From nothing to a loaded chain; imports count, those of Python itself do not."""
    first_seconds: float
    """The round that warms up."""
    rounds: tuple[dict[Step, float], ...]
    peak_rss: int
    """Of the whole process."""
    running_peak_rss: int | None
    """Of the rounds alone; None where the system cannot tell."""
    others: float | None
    """Share of all processors' time that other processes had meanwhile."""
    load_average: float | None
    """Of the minute before the process."""


def measure(
    chain: Chain, given: Inputs, rounds: int, before: Before
) -> tuple[Run, NDArray[np.float32]]:
    """Warm up, then time `rounds` rounds; also the masks of the first prompt."""
    start = time.perf_counter()
    _round(chain, given)
    first = time.perf_counter() - start
    peak = machine.peak_rss()
    forgot = machine.forget_peak()
    watch = machine.Watch()
    results = [_round(chain, given) for _ in range(rounds)]
    others = watch.others()
    running = machine.peak_rss()
    run = Run(
        dict(chain.engine),
        chain.precision,
        before.load_seconds,
        first,
        tuple(seconds for seconds, _ in results),
        max(peak, running),
        running if forgot else None,
        others,
        before.load_average,
    )
    return run, results[-1][1]


class Before(msgspec.Struct, frozen=True):
    """What was known once the chain was loaded."""

    load_seconds: float
    load_average: float | None


def _round(chain: Chain, given: Inputs) -> tuple[dict[Step, float], NDArray[np.float32]]:
    """One image end to end and a second prompt on it."""
    start = time.perf_counter()
    features = chain.encode(given.image)
    encoded = time.perf_counter()
    features = chain.enhance(features)
    enhanced = time.perf_counter()
    masks = chain.decode(features, given.first)
    decoded = time.perf_counter()
    chain.decode(features, given.second)
    again = time.perf_counter()
    seconds: dict[Step, float] = {
        "encoder": encoded - start,
        "enhancer": enhanced - encoded,
        "decoder": decoded - enhanced,
        "end_to_end": decoded - start,
        "second_prompt": again - decoded,
    }
    return seconds, masks
