"""Read the bodies of requests, within limits that hold while the bytes arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from glesam_serving.problems import ClientLeftError, ProblemError

if TYPE_CHECKING:
    from starlette.requests import Request

_MAX_PARTS = 16
_BODIES = 8
"""Bodies of the maximum size that all requests together may hold while they arrive."""


@dataclass
class Bodies:
    """The memory that arriving bodies share."""

    limit: int
    """Maximum size of one body in bytes."""
    seconds: float
    """Time within which a body must have arrived."""
    held: int = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Read a body and count its bytes until the context ends.

        Raises:
            ProblemError: the body is too large or too slow, or others hold all the memory.
            ClientLeftError: the client closed the connection.
        """
        declared = request.headers.get("content-length", "0")
        if declared.isdigit() and int(declared) > self.limit:
            raise self._too_large()
        buffer = bytearray()
        try:
            try:
                await asyncio.wait_for(self._receive(request, buffer), self.seconds)
            except asyncio.TimeoutError:
                raise ProblemError(
                    408,
                    f"the body did not arrive within {self.seconds:g} s; send it faster or smaller",
                    {"Connection": "close"},
                ) from None
            except ClientDisconnect:
                raise ClientLeftError from None
            yield bytes(buffer)
        finally:
            self.held -= len(buffer)

    async def _receive(self, request: Request, buffer: bytearray) -> None:
        async for chunk in request.stream():
            if len(buffer) + len(chunk) > self.limit:
                raise self._too_large()
            if self.held + len(chunk) > _BODIES * self.limit:
                raise ProblemError(
                    429,
                    "too many large bodies arrive at the same time; try again in 1 s",
                    {"Retry-After": "1", "Connection": "close"},
                )
            self.held += len(chunk)
            buffer += chunk

    def _too_large(self) -> ProblemError:
        return ProblemError(
            413,
            f"the body has more than {self.limit >> 20} MiB, the server's limit; send a smaller "
            "image or fewer prompts",
            {"Connection": "close"},
        )


def parts_of(content_type: str, body: bytes) -> dict[str, bytes] | None:
    """Return the fields of a multipart/form-data body by name, None for another content type.

    Raises:
        ProblemError: the body is not multipart/form-data as its header says.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        return None
    reader = _Parts()
    try:
        parser = MultipartParser(
            options.get(b"boundary", b""),
            {
                "on_part_begin": reader.begin,
                "on_header_field": reader.header_name,
                "on_header_value": reader.header_value,
                "on_header_end": reader.header_end,
                "on_part_data": reader.data,
                "on_part_end": reader.end,
                "on_end": reader.finish,
            },
        )
        parser.write(body)
        parser.finalize()
    except (MultipartParseError, ValueError) as error:
        raise _broken(str(error)) from error
    if not reader.complete:
        raise _broken("its end is missing")
    return reader.fields


def field_of(parts: dict[str, bytes], name: str) -> bytes:
    """Return a field of a form.

    Raises:
        ProblemError: the form does not have it.
    """
    if name not in parts:
        has = ", ".join(sorted(parts)) or "none"
        raise ProblemError(
            422, f"the form has the fields {has[:200]}, but {name!r} is needed; add it"
        )
    return parts[name]


def _broken(why: str) -> ProblemError:
    return ProblemError(
        400, f"the body is not multipart/form-data as its header says ({why}); send a form again"
    )


class _Parts:
    """Collects the fields that a parser reports."""

    def __init__(self) -> None:
        self.fields: dict[str, bytes] = {}
        self.complete = False
        self._name, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._data: list[bytes] = []

    def begin(self) -> None:
        if len(self.fields) >= _MAX_PARTS:
            raise ProblemError(422, f"the form has more than {_MAX_PARTS} fields; send fewer")
        self._headers, self._data = {}, []

    def header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name in self.fields:
            raise ProblemError(422, f"the form has the field {name[:64]!r} twice; leave out one")
        self.fields[name] = b"".join(self._data)

    def finish(self) -> None:
        self.complete = True
