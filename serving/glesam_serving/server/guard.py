"""Stand before every request: who may ask, what every answer carries, and what errors become."""

from __future__ import annotations

import hashlib
import hmac
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from glesam_serving.problems import ClientLeftError, ProblemError, respond

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from glesam_serving.server.metrics import Metrics
    from glesam_serving.settings import ServerOptions

_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; "
    "style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a page of this server may load: only its own files. It may compile WebAssembly, with which a
site of `glesam-export web` runs the model in the browser."""
_HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-embedder-policy", b"require-corp"),
)


class Guard:
    """Checks each request before the app sees it, and answers errors as problem documents."""

    def __init__(
        self, app: ASGIApp, options: ServerOptions, metrics: Metrics, debug: bool = False
    ) -> None:
        self._app, self._options, self._metrics, self._debug = app, options, metrics, debug
        key = options.api_key
        self._key = None if key is None else _digest(key)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", []))
                present = {name for name, _ in headers}
                headers += [pair for pair in _HEADERS if pair[0] not in present]
                if b"cache-control" not in present:
                    headers.append((b"cache-control", b"no-store"))
                message["headers"] = headers
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, sending)
        except ClientLeftError:
            status = 499
        except Exception as error:  # noqa: BLE001 - a bug must not end the connection silently
            self._log(error, scope)
            if status == 0:
                await respond(error)(scope, receive, sending)
        finally:
            route = scope.get("route")
            endpoint = getattr(route, "path", "other")
            self._metrics.answered(endpoint, status, time.perf_counter() - start)

    def _check(self, scope: Scope) -> None:
        """Refuse a request without the key, or from another site's page."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._key is not None:
            if _needs_key(scope["path"]) and scope["method"] != "OPTIONS":
                given = headers.get(b"authorization", b"")
                kind, _, key = given.partition(b" ")
                right = hmac.compare_digest(_digest(key.strip().decode("latin-1")), self._key)
                if kind.lower() != b"bearer" or not right:
                    raise ProblemError(
                        401,
                        "this server requires a key; send the header Authorization: Bearer KEY",
                        {"WWW-Authenticate": "Bearer"},
                    )
            return
        if self._options.insecure:
            return
        # Without a key a web page of another site could use a server on this machine.
        host = headers.get(b"host", b"").decode("latin-1")
        if _host_name(host) not in {*_LOCAL_NAMES, self._options.host}:
            raise ProblemError(
                403,
                f"the host {host[:100]!r} is not this server's; use http://127.0.0.1, or start the "
                "server with --api-key",
            )
        origin = headers.get(b"origin", b"").decode("latin-1")
        known = self._options.cors or []
        if origin and urlsplit(origin).netloc != host and origin not in known:
            raise ProblemError(
                403,
                f"a page of {origin[:100]!r} may not use this server; name it with --cors",
            )

    def _log(self, error: Exception, scope: Scope) -> None:
        """Print one line for a bug; the answer does not show it."""
        if isinstance(error, ProblemError):
            return
        text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        print(f"error: {scope['method']} {scope['path']!r}: {text}", file=sys.stderr, flush=True)
        if self._debug:
            traceback.print_exception(error)


def _needs_key(path: str) -> bool:
    """Return whether a path is part of the API; the page and its files are public."""
    return path.startswith("/v1/") or path == "/metrics"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host_name(host: str) -> str:
    """Return the name of a Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def no_such(scope: dict[str, Any]) -> ProblemError:
    """Return the error of a path that no route has."""
    return ProblemError(
        404, f"there is nothing at {scope['path'][:100]!r}; /docs lists what this server answers"
    )
