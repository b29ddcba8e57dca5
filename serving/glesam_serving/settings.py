"""Declare the options of a server once, for Python and for the command line."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from glesam_runtime.errors import InputError
from glesam_runtime.option_groups import option

_PANEL = "Server"
_MIB = 1 << 20


@dataclass(frozen=True)
class ServerOptions:
    """Where the server listens, what it requires of clients, and its limits.

    The help text of each field says what it does.
    """

    host: str = field(
        default="127.0.0.1",
        metadata=option(
            "Address to listen on. Another address than loopback requires --api-key or --insecure.",
            panel=_PANEL,
        ),
    )
    port: int = field(
        default=8000,
        metadata=option("Port to listen on; 0 takes a free one.", panel=_PANEL, minimum=0),
    )
    api_key: str | None = field(
        default=None,
        metadata=option(
            "Require `Authorization: Bearer KEY`. The environment variable hides the key from "
            "other users of this machine.",
            panel=_PANEL,
            metavar="KEY",
            envvar="GLESAM_API_KEY",
        ),
    )
    insecure: bool = field(
        default=False,
        metadata=option("Serve on any address without an API key.", panel=_PANEL),
    )
    cors: list[str] | None = field(
        default=None,
        metadata=option(
            "Let pages of this origin, such as https://example.org, use the server. Repeatable. "
            "Default: no other origin.",
            panel=_PANEL,
            metavar="ORIGIN",
        ),
    )
    cache_bytes: int | None = field(
        default=None,
        metadata=option(
            "Memory for encoded images in bytes; the least recently used are dropped. The latest "
            "image always stays. Default: a quarter of the free memory.",
            panel=_PANEL,
            minimum=1,
        ),
    )
    queue: int = field(
        default=64,
        metadata=option(
            "Maximum number of requests that run or wait; more are answered with 429.",
            panel=_PANEL,
            minimum=1,
        ),
    )
    timeout: float = field(
        default=60.0,
        metadata=option("Seconds after which a request is answered with 504.", panel=_PANEL),
    )
    receive_timeout: float = field(
        default=60.0,
        metadata=option("Seconds within which a request must have arrived.", panel=_PANEL),
    )
    max_body_mib: int = field(
        default=32,
        metadata=option("Maximum size of a request's body in MiB.", panel=_PANEL, minimum=1),
    )
    max_megapixels: int = field(
        default=64,
        metadata=option(
            "Maximum size of an image in megapixels of 1024 x 1024 pixels.",
            panel=_PANEL,
            minimum=1,
        ),
    )
    max_prompts: int = field(
        default=256,
        metadata=option("Maximum number of prompts per request.", panel=_PANEL, minimum=1),
    )
    max_points: int = field(
        default=256,
        metadata=option("Maximum number of points per prompt.", panel=_PANEL, minimum=1),
    )
    page: Path | None = field(
        default=None,
        metadata=option(
            "Folder of `glesam-export web` to serve as the page, which then can also run the "
            "model, or its decoder, in the browser. Default: the built-in page.",
            panel=_PANEL,
            metavar="FOLDER",
        ),
    )
    max_connections: int = field(
        default=512,
        metadata=option("Maximum number of open connections.", panel=_PANEL, minimum=1),
    )

    def check(self) -> None:
        """Refuse options that contradict each other, before a model is loaded.

        Raises:
            InputError: an address that others reach has no API key, or a number is out of range.
        """
        if not self.is_loopback and self.api_key is None and not self.insecure:
            raise InputError(
                f"--host {self.host}: others can reach this address; give --api-key, or --insecure "
                "to serve everyone"
            )
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip()):
            raise InputError("--api-key: must be ASCII characters, at least one")
        for name in ("timeout", "receive_timeout"):
            if not 0 < getattr(self, name) <= 86400:
                raise InputError(
                    f"--{name.replace('_', '-')} {getattr(self, name):g}: must be more than 0 and "
                    "at most 86400 seconds"
                )
        if self.port > 65535:
            raise InputError(f"--port {self.port}: must be at most 65535")

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine reaches the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def max_body(self) -> int:
        """Return the maximum size of a body in bytes."""
        return self.max_body_mib * _MIB

    @property
    def max_pixels(self) -> int:
        """Return the maximum number of pixels of an image."""
        return self.max_megapixels * _MIB
