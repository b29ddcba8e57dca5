"""What is timed: the three stages of any contender, one call each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from glesam_benchmark import machine
from glesam_runtime.bundle import Bundle, load_golden
from glesam_runtime.image import preprocess

PROMPT_INPUTS = ("point_coords", "point_labels", "mask_input", "has_mask_input")

Prompt = Mapping[str, NDArray[np.float32]]
"""The contract's four prompt inputs, of one prompt."""


@dataclass(frozen=True)
class GoldenInputs:
    """One image and two prompts on it.

    Attributes:
        image: [1, 3, S, S], as the encoder takes it.
        first: the prompt of the end-to-end run.
        second: another of the same make-up.
        expected: [1, 4, S/4, S/4], the first prompt's `low_res_masks` as the PyTorch reference gave
            them when the bundle was exported.
    """

    image: NDArray[np.float32]
    first: Prompt
    second: Prompt
    expected: NDArray[np.float32]


def golden_inputs(bundle: Bundle) -> GoldenInputs:
    """Read them.

    Raises:
        BundleError: the golden file cannot be used.
    """
    golden = load_golden(bundle)
    prepared = preprocess(golden["image"].astype(np.uint8), bundle.manifest.preprocessing)
    prompts = {name: np.asarray(golden[name], np.float32) for name in PROMPT_INPUTS}
    expected = np.asarray(golden["low_res_masks"], np.float32)
    return GoldenInputs(prepared.tensor, _one(prompts, 0), _one(prompts, -1), expected[:1])


def _one(prompts: Prompt, index: int) -> Prompt:
    """One prompt of a batch, its leading axis kept; `has_mask_input` is the batch's."""
    return {
        name: values if name == "has_mask_input" else values[index][None]
        for name, values in prompts.items()
    }


class Timing(msgspec.Struct, frozen=True):
    """Median, least and most of the rounds; seconds."""

    median: float
    min: float
    max: float
    rounds: tuple[float, ...]


def summarize(values: Sequence[float]) -> Timing:
    """Of at least one value."""
    return Timing(statistics.median(values), min(values), max(values), tuple(values))


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


class ContenderRun(msgspec.Struct, frozen=True):
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


def time_chain(
    chain: Chain, given: GoldenInputs, rounds: int, before: LoadFacts
) -> tuple[ContenderRun, NDArray[np.float32]]:
    """Warm up, then time `rounds` rounds; also the masks of the first prompt."""
    start = time.perf_counter()
    _time_round(chain, given)
    first = time.perf_counter() - start
    peak = machine.peak_rss()
    forgot = machine.forget_peak()
    watch = machine.Watch()
    results = [_time_round(chain, given) for _ in range(rounds)]
    others = watch.others()
    running = machine.peak_rss()
    run = ContenderRun(
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


class LoadFacts(msgspec.Struct, frozen=True):
    """What was known once the chain was loaded."""

    load_seconds: float
    load_average: float | None


def _time_round(chain: Chain, given: GoldenInputs) -> tuple[dict[Step, float], NDArray[np.float32]]:
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
