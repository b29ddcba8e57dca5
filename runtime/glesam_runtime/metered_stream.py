"""Refuse image files that take Pillow minutes: it reads them byte by byte, or parts repeatedly.

Pillow reads the headers of JPEG, GIF and PPM in Python, one byte at a time where it finds padding
or comments: 10 MB of padding take 8 seconds. It appends each EXIF block of a JPEG to those before
it, and cuts each comment out of the text of a PGM, which takes time that grows with the square of
their number.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from glesam_runtime.errors import InputError

_SMALL = 2
"""Bytes of a small read."""
_MOST_SMALL_READS = 1 << 18
"""A JPEG has some ten small reads, and an animated GIF has two for each 255 bytes of comments."""
_MOST_EXIF_BLOCKS = 100
"""A block has up to 64 KB, and cameras write one."""
_MOST_COMMENTS = 10_000
_EXIF = b"Exif\0\0"
_TEXT_FORMATS = (b"P1", b"P2", b"P3")
"""The starts of PBM, PGM and PPM files whose pixels are text."""
_REMEDY = "save the image again as PNG or JPEG"


class MeteredStream:
    """A binary stream that counts what Pillow reads from it, and raises if there is too much.

    Everything but `read` is left to the stream.
    """

    def __init__(self, stream: BinaryIO, name: str) -> None:
        """Read a stream from its start.

        Args:
            stream: a seekable binary stream, which the caller closes.
            name: the name of the image in messages.
        """
        self._stream = stream
        self._name = name
        self._is_text = stream.read(2) in _TEXT_FORMATS
        stream.seek(0)
        self._opening = True
        self._small_reads = self._exif_blocks = self._comments = 0

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the stream."""
        return getattr(self._stream, name)

    def opened(self) -> None:
        """Stop counting small reads: some decoders read pixels one by one."""
        self._opening = False

    def read(self, size: int = -1, /) -> bytes:
        """Return the next bytes of the stream.

        Raises:
            InputError: the file has too much padding, or too many EXIF blocks or comments.
        """
        content = self._stream.read(size)
        if self._opening:
            self._count_header(content)
        if self._is_text and b"#" in content:
            self._comments += content.count(b"#")
            self._check(self._comments, _MOST_COMMENTS, "comments")
        return content

    def _count_header(self, content: bytes) -> None:
        if len(content) <= _SMALL:
            self._small_reads += 1
            self._check(self._small_reads, _MOST_SMALL_READS, "bytes of padding or comments")
        elif content.startswith(_EXIF):
            self._exif_blocks += 1
            self._check(self._exif_blocks, _MOST_EXIF_BLOCKS, "EXIF blocks")

    def _check(self, count: int, limit: int, what: str) -> None:
        if count > limit:
            raise InputError(f"{self._name}: has more than {limit} {what}; {_REMEDY}")
