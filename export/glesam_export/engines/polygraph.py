"""Polygraphy, told which library to drive, its words kept for our own errors."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from glesam_runtime.backends.tensorrt_api import Api
from glesam_runtime.errors import BackendError

_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"


class _Kept(logging.Handler):
    """Keeps messages instead of printing them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one message, without Polygraphy's own mark in front."""
        self.messages.append(record.getMessage().partition("] ")[2] or record.getMessage())


@contextmanager
def driving(api: Api, what: str) -> Iterator[None]:
    """Use Polygraphy inside the block; what it raises becomes one line.

    Args:
        api: the library to drive. Polygraphy looks once a process, when it is first imported.
        what: is being done, and to which file; for messages.

    Raises:
        BackendError: Polygraphy is missing, drives the other library already, or failed; in the
            library's own first words.
    """
    wanted = "1" if api.family.name == "tensorrt-rtx" else "0"
    if "polygraphy" in sys.modules and os.environ.get(_SWITCH, "0") != wanted:
        raise BackendError(f"{what}: this process drives the other TensorRT; start a new one")
    os.environ[_SWITCH] = wanted
    try:
        from polygraphy.exception import PolygraphyException
        from polygraphy.logger import G_LOGGER
    except ImportError as error:
        raise BackendError(
            f"polygraphy cannot be imported ({error}); pip install 'glesam-deploy[export]'"
        ) from error
    kept, logger = _Kept(), logging.getLogger("Polygraphy")
    propagate = logger.propagate
    logger.addHandler(kept)
    logger.propagate = False
    G_LOGGER.use_python_logging_system = True
    try:
        with G_LOGGER.verbosity(G_LOGGER.ERROR):
            yield
    except PolygraphyException as error:
        reason = kept.messages[0] if kept.messages else str(error)
        raise BackendError(f"{what}: {api.family.name} {api.version} failed: {reason}") from error
    finally:
        logger.removeHandler(kept)
        logger.propagate = propagate
