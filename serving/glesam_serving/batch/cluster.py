"""Start a Ray cluster on this machine, or join one, and leave it.

A cluster of this machine ends with its driver, however that ends (`watcher`).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.machine import cores
from glesam_serving.batch.watcher import watched

if TYPE_CHECKING:
    from typing import Self

_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Size:
    """What a cluster has."""

    nodes: int
    cpus: float
    gpus: float


@contextmanager
def cluster(address: str | None) -> Iterator[Size]:
    """Join a cluster, or start one on this machine; yield its size, and leave it.

    Args:
        address: "auto", "host:port" or "ray://host:port"; None starts a cluster of all cores and
            GPUs of this machine.

    Raises:
        InputError: no cluster answers.
        BackendError: the cluster of this machine does not start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's C++ code prints warnings for its developers, which a user can do nothing about.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray gives workers the lowest priority, so that any other program on the machine stops a job.
    # Whoever wants that starts the command with `nice`.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray
    import ray.data

    # Errors reach the user as one line of this project, and with --debug as a traceback.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)

    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        settings.update(include_dashboard=False, num_cpus=max(2, cores()))
    elif address != "auto":
        host = _check_answers(address)
        if ipaddress.ip_address(host).is_loopback and "://" not in address:
            # Ray would replace a loopback address by one that such a cluster does not listen on.
            settings["_node_ip_address"] = host
    with watched(owns_cluster=address is None):
        try:
            with _silent_errors():
                # Without an address Ray would join a cluster that another program started here.
                ray.init(address or "local", **settings)
        except Exception as error:  # Ray raises many types, Exception itself among them
            if address is None:
                raise BackendError(
                    f"Ray does not start on this machine ({last_line(error)}); free memory or "
                    "cores, and start the same command again"
                ) from error
            raise InputError(
                f"--address {address}: no Ray cluster answers ({last_line(error)}); start one "
                "with 'ray start --head', or leave out --address to use this machine"
            ) from error
        try:
            found = ray.cluster_resources()
            nodes = sum(node["Alive"] for node in ray.nodes())
            yield Size(nodes, found.get("CPU", 1.0), found.get("GPU", 0.0))
        finally:
            ray.shutdown()


@contextmanager
def _silent_errors() -> Iterator[None]:
    """Discard what is printed to stderr: Ray's C++ code reports which log level it has."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _check_answers(address: str) -> str:
    """Connect to a cluster's port and return the IP address; Ray alone tries for minutes.

    Raises:
        InputError: the address is malformed, or nothing listens there.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and int(port[:6]) < 1 << 16):
        raise InputError(f"--address {address}: auto, HOST:PORT or ray://HOST:PORT is needed")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS) as made:
            found: str = made.getpeername()[0]
            return found
    except OSError as error:
        raise InputError(
            f"--address {address}: no Ray cluster answers ({error.strerror or error}); start one "
            "with 'ray start --head', or leave out --address to use this machine"
        ) from error


class Connection:
    """A cluster that is started or joined when it is needed for the first time."""

    def __init__(self, address: str | None) -> None:
        """Keep the address; see `cluster`."""
        self._address = address
        self._stack = ExitStack()
        self._size: Size | None = None

    def size(self) -> Size:
        """Start or join the cluster if that is not done, and return its size.

        Raises:
            InputError: no cluster answers.
        """
        if self._size is None:
            self._size = self._stack.enter_context(cluster(self._address))
        return self._size

    def __enter__(self) -> Self:
        """Return this connection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the cluster."""
        self._stack.close()


def last_line(error: BaseException) -> str:
    """Return the last line of an error that says something; Ray's end with what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
