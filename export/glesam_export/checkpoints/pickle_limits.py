"""Limits what torch unpickles: a pickle of 16 MB can take 2 GB, and compressed it has 16 KB.

The pickle of a file of torch.save names the tensors and describes them in some 200 bytes each.
Their numbers lie beside it, so that even the pickle of the largest models has less than one MB.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from glesam_runtime.errors import CheckpointError
from glesam_runtime.limits import PICKLE_BYTES


@contextmanager
def limited(path: Path, where: str) -> Iterator[Path | IO[bytes]]:
    """Yield what torch.load may read: the path of an archive, or the open file of older formats.

    Args:
        path: a file of torch.save.
        where: its name in messages.

    Raises:
        CheckpointError: the pickle is too long, or parts of the archive are compressed.
    """
    if zipfile.is_zipfile(path):
        _check_archive(path, where)
        yield path
        return
    with path.open("rb") as file:
        yield cast("IO[bytes]", _CountedFile(file, where))


def _check_archive(path: Path, where: str) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise CheckpointError(
                    f"{where}: its part {member.filename} is compressed, which torch.save does not "
                    "do; load it and save it again with torch.save"
                )
            if member.filename.lower().endswith(".pkl"):
                size = f"{where}: {member.filename} has {member.file_size} bytes"
                PICKLE_BYTES.check(member.file_size, size)


class _CountedFile:
    """A file that counts its reads: an unpickler reads each operation by itself.

    Older formats keep the pickle and the numbers in one file, so its length tells nothing.
    """

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file = file
        self._where = where
        self._reads = 0
        self._most = PICKLE_BYTES.value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes."""
        self._count()
        return self._file.read(size)

    def readline(self) -> bytes:
        """Return the next line, of which a pickle of tensors has short ones only."""
        self._count()
        line = self._file.readline(self._most + 1)
        PICKLE_BYTES.check(len(line), f"{self._where}: a line of its pickle is too long")
        return line

    def _count(self) -> None:
        self._reads += 1
        if self._reads > self._most:
            PICKLE_BYTES.check(self._reads, f"{self._where}: its pickle is too long")
