"""Ranks the modules of a half-precision graph by the gain from keeping them in float32.

Each module is judged on the input that it gets in the float32 graph. It runs once in half precision
and once as an island: in float32 with inputs and output in half precision. Its worth is the error
that the island removes, per weight that it keeps in float32.

A module that overflows inside but not in its output is worth most. A module whose output itself
does not fit into half precision is worth nothing; the module around it is found instead.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from glesam_export import precision
from glesam_export.graphs import Graph


@dataclass(frozen=True)
class Candidate:
    """Describes a module that could become an island.

    Attributes:
        name: its path in the graph.
        error: relative L2 of its output in half precision; infinite if it overflows.
        island_error: relative L2 of its output as an island.
        weights: the number of weights that the island keeps in float32.
    """

    name: str
    error: float
    island_error: float
    weights: int

    @property
    def worth(self) -> float:
        """Return the error that the island removes, per weight."""
        if not math.isfinite(self.island_error):
            return 0.0
        return max(0.0, self.error - self.island_error) / (1 + self.weights)


@dataclass(frozen=True)
class Call:
    """Holds the arguments of one call of a module.

    Attributes:
        positional: arguments given by position.
        named: arguments given by name.
    """

    positional: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def values(self) -> tuple[Any, ...]:
        """Return all arguments."""
        return (*self.positional, *self.named.values())

    def cast(self, dtype: torch.dtype) -> Call:
        """Return the same call with its tensors in another dtype, those of integers unchanged."""

        def to_dtype(value: Tensor) -> Tensor:
            return value.to(dtype) if value.is_floating_point() else value

        named = {name: to_dtype(value) for name, value in self.named.items()}
        return Call(tuple(map(to_dtype, self.positional)), named)

    def run(self, module: nn.Module) -> Tensor:
        """Call a module with these arguments."""
        result: Tensor = module(*self.positional, **self.named)
        return result


@torch.no_grad()
def rank(
    graph: Graph,
    kinds: tuple[type[nn.Module], ...],
    dtype: torch.dtype,
    calls: Sequence[tuple[Tensor, ...]],
) -> list[Candidate]:
    """Rank the modules of a stage by their worth as islands, best first.

    Args:
        graph: the stage's graph in float32.
        kinds: module classes that are islands already.
        dtype: torch.float16 or torch.bfloat16.
        calls: inputs to run the stage on, each in the order of the graph's inputs.

    Returns:
        The candidates of positive worth. None of them lies inside another one.
    """
    worst: dict[str, Candidate] = {}
    busy = False

    def judge(path: str, module: nn.Module, call: Call, output: Any) -> None:
        nonlocal busy
        if busy or not all(isinstance(value, Tensor) for value in (output, *call.values)):
            return  # an island takes tensors and returns one tensor
        busy = True  # judging runs the module again, which calls its hooks again
        try:
            found = _judge(path, module, call, output, kinds, dtype)
        finally:
            busy = False
        if path not in worst or found.error > worst[path].error:
            worst[path] = found

    with ExitStack() as hooks:
        for path, module in _modules(graph, kinds):
            handle = module.register_forward_hook(
                lambda module, given, named, output, path=path: judge(
                    path, module, Call(given, named), output
                ),
                with_kwargs=True,
            )
            hooks.callback(handle.remove)
        for call in calls:
            graph(*call)
    worthwhile = [each for each in worst.values() if each.worth > 0]
    return _apart(sorted(worthwhile, key=lambda each: (-each.worth, each.weights)))


def _judge(
    path: str,
    module: nn.Module,
    call: Call,
    output: Tensor,
    kinds: tuple[type[nn.Module], ...],
    dtype: torch.dtype,
) -> Candidate:
    """Measure a module's error in half precision and as an island."""
    rounded = call.cast(dtype)
    half = copy.deepcopy(module)
    precision.type_module(half, kinds, dtype)
    return Candidate(
        path,
        _error(rounded.run(half), output),
        _error(rounded.cast(torch.float32).run(module).to(dtype), output),
        sum(parameter.numel() for parameter in module.parameters()),
    )


def _modules(graph: Graph, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that are not islands and do not lie inside one, by path."""
    islands: list[str] = []
    for path, module in graph.named_modules():
        if any(path.startswith(f"{island}.") for island in islands):
            continue
        if isinstance(module, kinds):
            islands.append(path)
        elif path:
            yield path, module


def _error(actual: Tensor, expected: Tensor) -> float:
    """Return the relative L2 error; infinite if `actual` is not finite."""
    difference = actual.double() - expected.double()
    error = float(difference.norm() / expected.double().norm().clamp_min(1e-30))
    return error if math.isfinite(error) else math.inf


def _apart(ranked: Sequence[Candidate]) -> list[Candidate]:
    """Drop candidates that lie inside or around a better one."""
    kept: list[Candidate] = []
    for candidate in ranked:
        name = candidate.name + "."
        if not any(name.startswith(k.name + ".") or (k.name + ".").startswith(name) for k in kept):
            kept.append(candidate)
    return kept
