"""Turn errors into answers: one sentence what is wrong, where, and what to do (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from glesam_runtime.errors import BackendError, GlesamError
from glesam_serving.wire import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

MEDIA_TYPE = "application/problem+json"


class ProblemError(GlesamError):
    """An error with the HTTP status that it is answered with."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        """Describe a problem.

        Args:
            status: the HTTP status.
            detail: one sentence: what is wrong, where, and what to do.
            headers: further headers of the answer.
        """
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})


class ClientLeftError(Exception):
    """Raised when the client closed the connection, so that nobody reads the answer."""


def gone(image_id: str) -> ProblemError:
    """Return the error of an image that is not in the cache."""
    return ProblemError(
        404,
        f"image {image_id[:64]!r} is not in the cache (it was never sent, was deleted, or made "
        "room for others); send it again with POST /v1/images",
    )


def document(error: Exception) -> Problem:
    """Return the problem document of an error."""
    status = status_of(error)
    if isinstance(error, GlesamError):
        detail = " ".join(str(error).split())
    elif isinstance(error, MemoryError):
        detail = "not enough memory for this request; send a smaller image or fewer prompts"
    else:
        detail = "a bug in the server; its log has the details, please report it"
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail)


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error; a request that cannot be used is 422."""
    if isinstance(error, ProblemError):
        return error.status
    if isinstance(error, BackendError):
        return 500
    if isinstance(error, MemoryError):
        return 503
    return 422 if isinstance(error, GlesamError) else 500


def respond(error: Exception) -> Response:
    """Return the answer to a request that failed."""
    problem = document(error)
    headers = error.headers if isinstance(error, ProblemError) else {}
    return Response(msgspec.json.encode(problem), problem.status, headers, MEDIA_TYPE)
