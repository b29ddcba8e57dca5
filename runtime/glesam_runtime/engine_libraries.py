"""Import the inference libraries of others with their usage reports switched off.

ONNX Runtime 1.32 looks up a host of its vendor and keeps an id and a database in the user's cache.
OpenVINO does the same, by the package openvino-telemetry, as soon as it is imported. All packages
of this project import the two libraries here.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glesam_runtime.termination import interruptible_import

ORT_SWITCH = "ORT_DISABLE_TELEMETRY"
"""ONNX Runtime reads this environment variable when it is loaded. A value of the user's stays."""

_OPENVINO_REPORTS = "openvino_telemetry"
"""The module that OpenVINO reports with. Without it OpenVINO reports nothing; it has no switch."""

_lock = threading.Lock()
_cores: list[Any] = []
"""The only Core, once there is one."""


def import_onnxruntime() -> Any:
    """Return the module onnxruntime.

    Raises:
        ImportError: it is not installed or cannot be loaded.
    """
    os.environ.setdefault(ORT_SWITCH, "1")
    with interruptible_import():
        import onnxruntime

    return onnxruntime


def import_openvino() -> Any:
    """Return the module openvino.

    Raises:
        ImportError: it is not installed or cannot be loaded.
    """
    with _lock, _openvino_reports_hidden(), interruptible_import():
        import openvino

        return openvino


def openvino_core() -> Any:
    """Return the `openvino.Core` of this process. It is made at the first call and never freed.

    OpenVINO's CPU plugin replaces the stack that signal handlers of its thread run on, and frees it
    with the plugin. If another thread, or an older plugin, goes last, the kernel is left with a
    stack that is gone, and the next signal ends the process by SIGSEGV. So the plugin stays.

    Raises:
        ImportError: openvino is not installed or cannot be loaded.
    """
    ov = import_openvino()
    with _lock:
        if not _cores:
            _cores.append(ov.Core())
    return _cores[0]


def disable_reports() -> None:
    """Switch the reports off for the whole process, for imports by other libraries too.

    Only programs call this: a library does not decide for the process that it is used in.
    """
    os.environ.setdefault(ORT_SWITCH, "1")
    sys.modules.setdefault(_OPENVINO_REPORTS, None)  # type: ignore[arg-type]


@contextmanager
def _openvino_reports_hidden() -> Iterator[None]:
    """Make `import openvino_telemetry` fail, as if it were not installed."""
    missing = object()
    before: Any = sys.modules.get(_OPENVINO_REPORTS, missing)
    sys.modules[_OPENVINO_REPORTS] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is missing:
            del sys.modules[_OPENVINO_REPORTS]
        else:
            sys.modules[_OPENVINO_REPORTS] = before
