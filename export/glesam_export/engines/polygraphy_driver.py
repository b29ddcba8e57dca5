"""Tells Polygraphy which TensorRT library to use, and turns its errors into ours."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from glesam_runtime.backends.tensorrt_api import Api
from glesam_runtime.errors import BackendError

_RTX_SWITCH = "POLYGRAPHY_USE_TENSORRT_RTX"
"""Polygraphy reads this environment variable when it is first imported."""


class _MessageKeeper(logging.Handler):
    """Stores error messages instead of printing them."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store one message without the prefix that Polygraphy adds."""
        self.messages.append(record.getMessage().partition("] ")[2] or record.getMessage())


@contextmanager
def drive_polygraphy(api: Api, task: str) -> Iterator[None]:
    """Run a block that uses Polygraphy; turn its exceptions into one-line errors.

    Args:
        api: the library to use. A process can use only one: Polygraphy chooses it at its import.
        task: names the work and its file in error messages.

    Raises:
        BackendError: Polygraphy is missing, already uses the other library, or failed. After a
            failure the message quotes the library's first error.
    """
    wanted = "1" if api.family.name == "tensorrt-rtx" else "0"
    if "polygraphy" in sys.modules and os.environ.get(_RTX_SWITCH, "0") != wanted:
        raise BackendError(
            f"{task}: this process already uses the other TensorRT library; start a new process"
        )
    os.environ[_RTX_SWITCH] = wanted
    try:
        from polygraphy.exception import PolygraphyException
        from polygraphy.logger import G_LOGGER
    except ImportError as error:
        raise BackendError(
            f"polygraphy cannot be imported ({error}); pip install 'glesam-deploy[export]'"
        ) from error
    keeper, logger = _MessageKeeper(), logging.getLogger("Polygraphy")
    propagate = logger.propagate
    logger.addHandler(keeper)
    logger.propagate = False
    G_LOGGER.use_python_logging_system = True
    try:
        with G_LOGGER.verbosity(G_LOGGER.ERROR):
            yield
    except PolygraphyException as error:
        reason = keeper.messages[0] if keeper.messages else str(error)
        raise BackendError(f"{task}: {api.family.name} {api.version} failed: {reason}") from error
    finally:
        logger.removeHandler(keeper)
        logger.propagate = propagate
