"""Run the app with uvicorn until SIGTERM or Ctrl-C, and finish what runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import uvicorn

from glesam_serving.server.app import create_app
from glesam_serving.server.protocol import make_protocol

if TYPE_CHECKING:
    import socket

    from glesam_serving.server.model import Model
    from glesam_serving.settings import ServerOptions

_KEEP_ALIVE = 15
"""Seconds that an idle connection stays open."""
BACKLOG = 512
"""Connections that may wait to be accepted."""
_SWITCH = 0.001
"""Seconds after which a busy Python thread lets the event loop run; Python's own value, 0.005, is
more than a click should wait."""


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what runs; the signal that asked for it is then no error."""
        await super().shutdown(sockets)
        self._captured_signals.clear()


def run_server(
    model: Model, options: ServerOptions, listening: socket.socket, *, debug: bool = False
) -> None:
    """Serve until a signal asks to stop; running requests are finished first."""
    config = uvicorn.Config(
        create_app(model, options, debug=debug),
        http=make_protocol(options.receive_timeout, options.timeout, options.max_connections),
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=int(options.timeout) + 5,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=32 * 1024,
    )
    sys.setswitchinterval(_SWITCH)
    _Server(config).run(sockets=[listening])
