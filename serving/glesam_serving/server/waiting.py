"""Wait for work as long as the client does, and no longer than the server allows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from glesam_serving.problems import ClientLeftError, ProblemError

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")


async def wait_for(request: Request, work: Coroutine[object, object, T], seconds: float) -> T:
    """Return the result of work; cancel it if the client leaves or the time is over.

    The request's body must have been read.

    Raises:
        ClientLeftError: the client closed the connection.
        ProblemError: the work took longer than `seconds`.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        done, _ = await asyncio.wait(
            {task, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
        )
        if task in done:
            return task.result()
    finally:
        leaving.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
    if leaving in done:
        raise ClientLeftError
    raise ProblemError(
        504,
        f"the answer was not ready within {seconds:g} s, this server's limit; send less at once or "
        "try again later",
    )


async def _left(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
