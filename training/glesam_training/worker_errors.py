"""Carry a project error out of a `DataLoader`'s worker as it is.

PyTorch replaces an exception in a worker by one whose message is the worker's whole traceback, so
the line that says what to do would be lost in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils.data import default_collate

from glesam_runtime.errors import GlesamError

Batch = TypeVar("Batch")


class ErrorsAsItems(torch.utils.data.Dataset[Any]):
    """A dataset that returns the project errors of another instead of raising them."""

    def __init__(self, dataset: torch.utils.data.Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, number: int) -> Any:
        try:
            return self.dataset[number]
        except GlesamError as error:
            return error


@dataclass(frozen=True)
class CollateOrError:
    """Makes a batch of examples, or returns the first error among them."""

    collate: Callable[[list[Any]], Any] | None
    """Makes the batch; None stacks the examples."""

    def __call__(self, examples: list[Any]) -> Any:
        """Return the batch or the error."""
        for example in examples:
            if isinstance(example, GlesamError):
                return example
        return (self.collate or default_collate)(examples)


def raise_errors(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the batches, and raise an error that comes in the place of one."""
    for batch in batches:
        if isinstance(batch, GlesamError):
            raise batch
        yield batch
