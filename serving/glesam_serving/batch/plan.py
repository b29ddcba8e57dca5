"""Fix the rows of a job before it starts, cut into chunks, so that a resumed job has the same rows.

A chunk is the unit that is read, inferred, written and resumed. The plan is two files: one line of
JSON for each chunk, and the offset of each line, so that any worker can read any chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from glesam_runtime.errors import InputError
from glesam_serving.batch.rows import Row

_CHUNKS, _OFFSETS = "chunks.jsonl", "offsets.u64"
_decoder = msgspec.json.Decoder(list[Row])


def write_plan(folder: Path, rows: Iterable[Row], per_chunk: int, limit: int | None) -> int:
    """Write the plan of a job into an empty folder, and return the number of rows.

    Args:
        folder: the folder.
        rows: the rows, which are read one chunk at a time.
        per_chunk: rows of a chunk; the last chunk may have fewer.
        limit: the largest number of rows; None is all of them.
    """
    remaining = iter(rows) if limit is None else islice(rows, limit)
    count = position = 0
    with (folder / _CHUNKS).open("wb") as chunks, (folder / _OFFSETS).open("wb") as offsets:
        while chunk := list(islice(remaining, per_chunk)):
            line = msgspec.json.encode(chunk) + b"\n"
            offsets.write(np.uint64(position).tobytes())
            chunks.write(line)
            position += len(line)
            count += len(chunk)
        offsets.write(np.uint64(position).tobytes())
    return count


@dataclass(frozen=True)
class Plan:
    """The plan of a job in its folder."""

    folder: Path

    def __len__(self) -> int:
        """Return the number of chunks."""
        return (self.folder / _OFFSETS).stat().st_size // 8 - 1

    def read(self, chunk: int) -> list[Row]:
        """Return the rows of a chunk.

        Raises:
            InputError: the plan is damaged.
        """
        with (self.folder / _OFFSETS).open("rb") as file:
            file.seek(chunk * 8)
            start, end = np.frombuffer(file.read(16), "<u8").tolist()
        with (self.folder / _CHUNKS).open("rb") as file:
            file.seek(start)
            line = file.read(end - start)
        try:
            return _decoder.decode(line)
        except msgspec.DecodeError as error:
            raise InputError(
                f"{self.folder / _CHUNKS}: chunk {chunk} cannot be read ({error}); start the job "
                "in another folder"
            ) from error

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all chunks."""
        for chunk in range(len(self)):
            yield from self.read(chunk)


def pending(count: int, done: Iterable[int], shard: tuple[int, int]) -> np.ndarray:
    """Return the numbers of the chunks that are still to be done, in order.

    Args:
        count: chunks of the job.
        done: chunks that are written.
        shard: (k, n): only every nth chunk, from the kth on, counted from 1.
    """
    open_ = np.ones(count, np.bool_)
    k, n = shard
    wanted = np.zeros(count, np.bool_)
    wanted[k - 1 :: n] = True
    written = np.fromiter(done, np.int64)
    open_[written] = False
    return np.flatnonzero(open_ & wanted)


def parse_shard(text: str) -> tuple[int, int]:
    """Read `k/n`, such as 2/8.

    Raises:
        InputError: it is something else.
    """
    first, slash, last = text.partition("/")
    if slash and first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last):
        return int(first), int(last)
    raise InputError(f"--shard {text}: k/n is needed with k from 1 to n, such as 2/8")
