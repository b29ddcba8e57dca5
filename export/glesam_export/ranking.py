"""Finds what must stay float32 in a half-precision graph: modules ranked by the error they make.

A module is judged where it stands, on the input that float32 gives it: once computed in half
precision and once in float32 between half-precision borders, as an island would be. What an island
takes off the error, for each weight that it keeps in float32, is its worth. One that overflows
inside and not at its border is worth most; one whose own output does not fit half precision is
worth nothing, and the module around it is found instead.
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
    """A module that could become an island.

    Attributes:
        name: in its graph.
        error: relative L2 of its output in half precision; infinite where that overflows.
        island_error: the same with float32 inside and half precision at its borders.
        weights: numbers it would keep in float32.
    """

    name: str
    error: float
    island_error: float
    weights: int

    @property
    def worth(self) -> float:
        """Error that the island takes away, for each weight."""
        if not math.isfinite(self.island_error):
            return 0.0
        return max(0.0, self.error - self.island_error) / (1 + self.weights)


@dataclass(frozen=True)
class Call:
    """What a module was called with."""

    given: tuple[Any, ...]
    named: dict[str, Any]

    @property
    def values(self) -> tuple[Any, ...]:
        """All of it."""
        return (*self.given, *self.named.values())

    def cast(self, dtype: torch.dtype) -> Call:
        """The same in another dtype."""
        given = tuple(value.to(dtype) for value in self.given)
        return Call(given, {name: value.to(dtype) for name, value in self.named.items()})

    def of(self, module: nn.Module) -> Tensor:
        """What a module makes of it."""
        result: Tensor = module(*self.given, **self.named)
        return result


@torch.no_grad()
def rank(
    graph: Graph,
    kinds: tuple[type[nn.Module], ...],
    dtype: torch.dtype,
    calls: Sequence[tuple[Tensor, ...]],
) -> list[Candidate]:
    """Judge every module of a stage, the most worthwhile island first.

    Args:
        graph: in float32.
        kinds: classes of the islands that there are already.
        dtype: half precision.
        calls: inputs of the stage, in order.

    Returns:
        Candidates of some worth, none inside another of the list.
    """
    worst: dict[str, Candidate] = {}
    busy = False

    def judge(path: str, module: nn.Module, call: Call, output: Any) -> None:
        nonlocal busy
        if busy or not all(isinstance(value, Tensor) for value in (output, *call.values)):
            return  # an island stands around what takes tensors and gives one
        busy = True  # the module is run again in here, and its hooks with it
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
    rounded = call.cast(dtype)
    half = copy.deepcopy(module)
    precision.type_module(half, kinds, dtype)
    return Candidate(
        path,
        _error(rounded.of(half), output),
        _error(rounded.cast(torch.float32).of(module).to(dtype), output),
        sum(parameter.numel() for parameter in module.parameters()),
    )


def _modules(graph: Graph, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    """Modules that are no islands yet and lie in none."""
    islands: list[str] = []
    for path, module in graph.named_modules():
        if any(path.startswith(f"{island}.") for island in islands):
            continue
        if isinstance(module, kinds):
            islands.append(path)
        elif path:
            yield path, module


def _error(actual: Tensor, expected: Tensor) -> float:
    """Relative L2; infinite for what is not finite."""
    difference = actual.double() - expected.double()
    error = float(difference.norm() / expected.double().norm().clamp_min(1e-30))
    return error if math.isfinite(error) else math.inf


def _apart(ranked: Sequence[Candidate]) -> list[Candidate]:
    """Leave out what lies inside or around a better one."""
    kept: list[Candidate] = []
    for candidate in ranked:
        name = candidate.name + "."
        if not any(name.startswith(k.name + ".") or (k.name + ".").startswith(name) for k in kept):
            kept.append(candidate)
    return kept
