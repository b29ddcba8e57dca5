"""Set the training options as the released GleSAM code sets them, for `--as-released`.

The values are those of the repository guangqian-guo/GleSAM at commit e1fdc49: its training scripts,
and its parsers' defaults for rank, alpha and warm-up. An option that the user gives wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from glesam_export.weight_options import WeightOptions
from glesam_runtime.option_groups import flag
from glesam_runtime.verbosity import print_note
from glesam_training.options import AdapterOptions, TrainingOptions

Stage = Literal["enhancer", "decoder"]
TrainingT = TypeVar("TrainingT", bound=TrainingOptions)

BOTH: Mapping[str, Any] = MappingProxyType(
    {"recipe": "released", "levels": "drawn", "batch": 1, "loss_weights": "1:1"}
)
"""Options of both stages."""

WARMUP: Mapping[str, Any] = MappingProxyType({"warmup": 500})
"""Options of stage 1 alone; the released stage 2 has no warm-up."""

WEIGHTS: Mapping[str, Any] = MappingProxyType({"timestep": 1, "input": "released"})
"""Options of a GleSAM that is made of separate files; a checkpoint has its own."""

ADAPTERS: Mapping[str, Any] = MappingProxyType({"rank": 64, "alpha": 8.0})
"""Options of a new LoRA; a given one has its own."""


def as_released(
    stage: Stage,
    weights: WeightOptions,
    training: TrainingT,
    adapters: AdapterOptions,
    *,
    is_given: Callable[[str], bool],
) -> tuple[WeightOptions, TrainingT, AdapterOptions]:
    """Return the options with the released values, if `--as-released` asks for them.

    Args:
        stage: stage 1 or stage 2.
        weights: where the weights come from.
        training: the training options.
        adapters: the options of a new LoRA, which stage 2 does not use.
        is_given: whether the user gave the option of a name.
    """
    if not training.as_released:
        return weights, training, adapters
    said: list[str] = []

    def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
        left = {name: value for name, value in values.items() if not is_given(name)}
        for name, value in left.items():
            said.append(f"{flag(name)} {value:g}" if name == "alpha" else f"{flag(name)} {value}")
        return left

    training = replace(training, **chosen({**BOTH, **(WARMUP if stage == "enhancer" else {})}))
    if weights.given_files or weights.random_weights is not None:
        weights = replace(weights, **chosen(WEIGHTS))
    if stage == "enhancer" and adapters.are_new(weights):
        adapters = replace(adapters, **chosen(ADAPTERS))
    print_note(f"--as-released sets {', '.join(said) or 'nothing that was not given'}")
    return weights, training, adapters
