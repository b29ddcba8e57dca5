"""The chunks of a job as a source of Ray Data, whose read tasks read the images.

`ray.data.range` would reserve a whole core for each of its own tasks: a cluster where no node has
one free beside its actors would never start them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from glesam_serving.batch import stages

_CHUNKS_PER_TASK = 4
"""Chunks that one read task makes, one after another. A task that is lost is repeated whole."""


class ChunkSource(Datasource):  # type: ignore[misc]  # Ray's class has no types
    """Chunks by their numbers. Each becomes a row whose column `chunk` is what `packed` returns."""

    def __init__(self, setup: stages.Setup, chunks: np.ndarray) -> None:
        """Keep the job once for all tasks.

        Args:
            setup: the job.
            chunks: the numbers of the chunks, int64 [N].
        """
        super().__init__()
        self._setup = [ray.put(setup)]
        self._tasks = np.array_split(chunks, self.tasks(len(chunks)))

    @staticmethod
    def tasks(chunks: int) -> int:
        """Return the number of read tasks for so many chunks."""
        return max(1, -(-chunks // _CHUNKS_PER_TASK))

    def estimate_inmemory_data_size(self) -> int | None:
        """Return that the size of the images is not known."""
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:
        """Return the read tasks, whatever number Ray asks for."""
        return [
            ReadTask(
                partial(_read, self._setup, numbers),
                BlockMetadata(
                    num_rows=len(numbers), size_bytes=None, input_files=None, exec_stats=None
                ),
            )
            for numbers in self._tasks
        ]


def _read(setup: list[Any], numbers: np.ndarray) -> Iterator[pa.Table]:
    job: stages.Setup = ray.get(setup[0])
    for number in numbers.tolist():
        yield pa.table({"chunk": [stages.read(job, number).packed()]})
