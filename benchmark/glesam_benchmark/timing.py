"""Time the three stages of a contender on the golden image and its prompts."""

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
"""The contract's four prompt inputs for one prompt."""


@dataclass(frozen=True)
class GoldenInputs:
    """One image and two prompts on it.

    Attributes:
        image: [1, 3, S, S], ready for the encoder.
        first: the prompt of the end-to-end run.
        second: another prompt with the same number of points.
        expected: [1, 4, S/4, S/4], the first prompt's `low_res_masks` as the PyTorch reference
            computed them when the bundle was exported.
    """

    image: NDArray[np.float32]
    first: Prompt
    second: Prompt
    expected: NDArray[np.float32]


def golden_inputs(bundle: Bundle) -> GoldenInputs:
    """Read the inputs from the bundle's golden file.

    Raises:
        BundleError: the golden file cannot be used.
    """
    golden = load_golden(bundle)
    prepared = preprocess(golden["image"].astype(np.uint8), bundle.manifest.preprocessing)
    prompts = {name: np.asarray(golden[name], np.float32) for name in PROMPT_INPUTS}
    expected = np.asarray(golden["low_res_masks"], np.float32)
    return GoldenInputs(prepared.tensor, _one(prompts, 0), _one(prompts, -1), expected[:1])


def _one(prompts: Prompt, index: int) -> Prompt:
    """Return one prompt of a batch, with a leading axis of 1; `has_mask_input` is shared by all."""
    return {
        name: values if name == "has_mask_input" else values[index][None]
        for name, values in prompts.items()
    }


class Timing(msgspec.Struct, frozen=True):
    """Median, minimum and maximum of the rounds, in seconds."""

    median: float
    min: float
    max: float
    rounds: tuple[float, ...]


def summarize(values: Sequence[float]) -> Timing:
    """Summarize at least one value."""
    return Timing(statistics.median(values), min(values), max(values), tuple(values))


Step = Literal["encoder", "enhancer", "decoder", "end_to_end", "second_prompt"]
STEPS: tuple[Step, ...] = get_args(Step)
"""`end_to_end` is image to logits: the first three steps together. `second_prompt` is the decoder
once more, on the image that is already encoded."""


class Chain(Protocol):
    """A loaded contender. Each call returns when its result is ready."""

    @property
    def engine(self) -> Mapping[str, str]:
        """Return the engine's name, version and device."""

    @property
    def precision(self) -> str:
        """Return the precision that the chain computes in: "fp32", "bf16" and so on."""

    def encode(self, image: NDArray[np.float32]) -> Any:
        """Turn an image [1, 3, S, S] into features."""

    def enhance(self, features: Any) -> Any:
        """Turn features with z_L into features with z_H."""

    def decode(self, features: Any, prompt: Prompt) -> NDArray[np.float32]:
        """Turn one prompt into `low_res_masks` [1, 4, S/4, S/4] on the host."""


class ContenderRun(msgspec.Struct, frozen=True):
    """One process's measurements of a contender, in seconds and bytes."""

    engine: dict[str, str]
    precision: str
    load_seconds: float
    """Time to load the chain, including imports but not the start of Python."""
    first_seconds: float
    """Time of the warm-up round."""
    rounds: tuple[dict[Step, float], ...]
    peak_rss: int
    """Peak of the whole process."""
    running_peak_rss: int | None
    """Peak of the timed rounds alone; None if the system cannot tell."""
    others: float | None
    """Share of all processors that other processes used during the rounds."""
    load_average: float | None
    """Load average of the minute before the process."""


def time_chain(
    chain: Chain, given: GoldenInputs, rounds: int, before: LoadFacts
) -> tuple[ContenderRun, NDArray[np.float32]]:
    """Warm up, time `rounds` rounds, and return the figures with the first prompt's masks."""
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
    """The figures of loading a chain, which its `ContenderRun` repeats."""

    load_seconds: float
    load_average: float | None


def _time_round(chain: Chain, given: GoldenInputs) -> tuple[dict[Step, float], NDArray[np.float32]]:
    """Time one image end to end, and a second prompt on it."""
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
