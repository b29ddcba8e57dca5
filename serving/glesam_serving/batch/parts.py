"""Write the rows of a chunk once, whatever is killed, and read what is written.

Each chunk has one file, `masks/<thousands>/part-<chunk>.parquet`. It is written under a hidden
name, flushed to the disk, and then linked to its name, which fails if the name exists. So a chunk
is absent or complete, and the first writer of a chunk wins, even if a worker of an earlier run is
still alive. The file's metadata holds the images that failed; `failed/` repeats them for people and
for other programs, and is made from the metadata alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from pyarrow import parquet

from glesam_runtime.errors import InputError
from glesam_serving.batch.writing_errors import remedy

MASKS, FAILED = "masks", "failed"
_PER_FOLDER = 1000
_READERS = 16
_NAME = re.compile(r"part-(\d{9})\.parquet")
_FAILURES = b"glesam.failed"

MASK_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("image_id", pa.int64()),
        pa.field("mask", pa.int32(), nullable=False),
        pa.field("prompt", pa.int32()),
        pa.field("annotation_id", pa.int64()),
        pa.field("points", pa.list_(pa.list_(pa.float64()))),
        pa.field("prompt_box", pa.list_(pa.float64())),
        pa.field("predicted_iou", pa.float64(), nullable=False),
        pa.field("stability_score", pa.float64(), nullable=False),
        pa.field("area", pa.int64(), nullable=False),
        pa.field("box", pa.list_(pa.int32(), 4), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("counts", pa.string(), nullable=False),
        pa.field("enhanced", pa.bool_(), nullable=False),
        pa.field("estimate", pa.float64()),
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)
"""One row a mask. `counts` with height and width is COCO's RLE; `seconds` is that of the image, and
the only column in which two runs differ."""

FAILED_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("image_id", pa.int64()),
        pa.field("error", pa.string(), nullable=False),
    ]
)


class Failure(msgspec.Struct, frozen=True):
    """An image without masks."""

    row: int
    image: str
    error: str
    """What is wrong, in one line."""
    image_id: int | None = None


def part_path(out: Path, kind: str, chunk: int) -> Path:
    """Return the file of a chunk; `kind` is `MASKS` or `FAILED`."""
    return out / kind / f"{chunk // _PER_FOLDER:06}" / f"part-{chunk:09}.parquet"


def written_chunks(out: Path, kind: str = MASKS) -> Iterator[int]:
    """Yield the numbers of the chunks that have a file, by the names alone."""
    base = out / kind
    if not base.is_dir():
        return
    for folder in sorted(base.iterdir()):
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                if match := _NAME.fullmatch(path.name):
                    yield int(match[1])


def commit(
    out: Path, chunk: int, masks: Sequence[dict[str, Any]], failures: Sequence[Failure]
) -> bool:
    """Write the rows of a chunk, and return whether this call did it.

    False means that another worker was faster; its rows stay.

    Raises:
        InputError: the file cannot be written.
    """
    final = part_path(out, MASKS, chunk)
    table = pa.Table.from_pylist(list(masks), MASK_SCHEMA)
    if failures:
        table = table.replace_schema_metadata({_FAILURES: msgspec.json.encode(list(failures))})
    first = _put(table, final)
    _derive_failed(out, chunk, list(failures) if first else read_failures(final))
    return first


def repair_failed(out: Path) -> None:
    """Make `failed/` agree with the metadata of all parts of a job; a killed run may differ."""

    def repair(chunk: int) -> None:
        path = part_path(out, MASKS, chunk)
        failures = read_failures(path) if path.exists() else []
        if bool(failures) != part_path(out, FAILED, chunk).exists():
            _derive_failed(out, chunk, failures)

    # A shared file system answers many requests at a time, each of them slowly.
    with ThreadPoolExecutor(_READERS) as pool:
        for _ in pool.map(repair, set(written_chunks(out)) | set(written_chunks(out, FAILED))):
            pass


def read_failures(path: Path) -> list[Failure]:
    """Return the images that failed in a chunk, from the metadata of its part."""
    metadata = parquet.read_schema(path).metadata or {}
    raw = metadata.get(_FAILURES)
    return [] if raw is None else msgspec.json.decode(raw, type=list[Failure])


def _derive_failed(out: Path, chunk: int, failures: list[Failure]) -> None:
    path = part_path(out, FAILED, chunk)
    if not failures:
        path.unlink(missing_ok=True)
        return
    table = pa.Table.from_pylist([msgspec.structs.asdict(one) for one in failures], FAILED_SCHEMA)
    _put(table, path)


def _put(table: pa.Table, final: Path) -> bool:
    """Write a table to a file that does not exist yet; return whether it did not exist."""
    hidden = final.with_name(f".{final.name}.{os.getpid()}-{os.urandom(6).hex()}")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with hidden.open("wb") as file:
            parquet.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(hidden, final)
        except FileExistsError:
            return False
        descriptor = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True
    except OSError as error:
        raise InputError(f"{final}: {remedy(error)}") from error
    finally:
        with suppress(OSError):
            hidden.unlink()


def clear_hidden(out: Path) -> None:
    """Remove the hidden files that killed workers left. No worker may run."""
    for kind in (MASKS, FAILED):
        for path in (out / kind).glob("*/.part-*"):
            path.unlink(missing_ok=True)
