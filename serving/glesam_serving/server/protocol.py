"""Speak HTTP/1.1 with uvicorn, but end connections that send or read too slowly.

uvicorn has a limit for idle connections only: a client that sends one byte a minute keeps its
connection for ever. Here a request has a time to arrive in, and an answer a time to be taken in.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
import msgspec
from uvicorn.protocols.http.h11_impl import H11Protocol

from glesam_serving.problems import MEDIA_TYPE
from glesam_serving.wire import Problem

HEADER_SECONDS = 10.0
"""Time for the head of a request."""
_GRACE = 5.0
"""Seconds between the answer 408 to a slow body and the end of the connection."""


def make_protocol(
    receive_seconds: float, send_seconds: float, max_connections: int
) -> type[H11Protocol]:
    """Return a protocol class with these limits.

    Args:
        receive_seconds: time for a whole request.
        send_seconds: time for a client to take what waits to be sent.
        max_connections: number of open connections; further ones are answered with 503.
    """

    class Limited(_LimitedProtocol):
        limits = (receive_seconds, send_seconds, max_connections)

    return Limited


class _LimitedProtocol(H11Protocol):
    limits: tuple[float, float, int]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._receiving: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._whole = False
        """Whether the running timer is that of a whole request, not of its head."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits[2]:
            transport.write(_whole_answer(503, "Service Unavailable", _TOO_MANY))
            transport.close()
            return
        self._arm(HEADER_SECONDS, whole=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._follow()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._follow()

    def pause_writing(self) -> None:
        """Give the client a time to take what waits."""
        super().pause_writing()
        if self._sending is None:
            self._sending = self.loop.call_later(self.limits[1], self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that time."""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no HTTP with a problem document."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_whole_answer(400, "Bad Request", _NOT_HTTP))
        self.transport.close()

    def _follow(self) -> None:
        """Run a timer exactly while a part of a request is still to come."""
        if self.transport.is_closing():
            self._disarm()
            return
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            if not self._whole:
                self._arm(self.limits[0] + _GRACE, whole=True)
        elif state is h11.IDLE and (self.conn.trailing_data[0] or self.cycle is None):
            if self._receiving is None or self._whole:
                self._arm(HEADER_SECONDS, whole=False)
        else:
            self._disarm()

    def _arm(self, seconds: float, *, whole: bool) -> None:
        self._disarm()
        self._whole = whole
        self._receiving = self.loop.call_later(seconds, self.transport.abort)

    def _disarm(self) -> None:
        if self._receiving is not None:
            self._receiving.cancel()
            self._receiving = None
        self._whole = False


_TOO_MANY = "the server has as many connections as it allows; close one or try again later"
_NOT_HTTP = "the bytes are not an HTTP/1.1 request; check the client and the address"


def _whole_answer(status: int, title: str, detail: str) -> bytes:
    """Return a problem document with its head, for a connection without a request."""
    body = msgspec.json.encode(Problem(title=title, status=status, detail=detail))
    head = (
        f"HTTP/1.1 {status} {title}\r\nContent-Type: {MEDIA_TYPE}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
