"""Report the errors of this project's command lines: one line on stderr and an exit code.

Exit codes: 0 success, 1 exceeded accuracy limits or a bug in this program, 2 bad input,
130 interrupted (Ctrl-C), 141 nobody reads stdout or stderr any more (`| head -0`; no message), 143
terminated (SIGTERM), 129 terminated (SIGHUP).
"""

from __future__ import annotations

import _thread
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

import typer

from glesam_runtime.common_options import check_completion
from glesam_runtime.engine_libraries import disable_reports
from glesam_runtime.errors import GlesamError
from glesam_runtime.terminal_text import message_line
from glesam_runtime.termination import Termination, was_interrupted

_EXTRAS = {
    "calibration": ("cv2", "matplotlib", "ml_dtypes", "onnx", "onnx_ir", "scipy"),
    "export": (
        "diffusers",
        "onnxscript",
        "peft",
        "polygraphy",
        "sam2",
        "segment_anything",
        "torch",
        "torchvision",
        "transformers",
    ),
    "training": ("accelerate", "pycocotools", "skimage", "tensorboard"),
    "serve": (
        "fastapi",
        "h11",
        "httpx",
        "prometheus_client",
        "python_multipart",
        "starlette",
        "uvicorn",
        "uvloop",
    ),
    "batch": ("fsspec", "pyarrow", "ray"),
}
"""The extras of glesam-deploy and the modules that they install; each but serve and batch contains
the one before."""

_EXTRA_OF_PROGRAM = {
    "glesam-bench": "export",
    "glesam-export": "export",
    "glesam-train": "training",
}
"""The least that a program needs, so that one installation is enough."""

_INTERRUPTED = 130
_READER_GONE = 141
"""The exit code: 128 + SIGPIPE, as of a program that SIGPIPE ends."""
_WIDEST = 4
"""Digits of the number of columns of a terminal."""
_REPEAT_AFTER = 0.05
"""Seconds after which a lost Ctrl-C is repeated."""


def run_app(app: typer.Typer, prog_name: str) -> NoReturn:
    """Run an app on the process's arguments and exit.

    With `--debug` among the arguments an error shows its traceback.
    """
    arguments = sys.argv[1:]
    disable_reports()
    _limit_width()
    _replace_closed_streams()
    _print_any_character()
    termination = Termination()
    termination.install()
    sys.unraisablehook = partial(_repeat_interrupt, termination)
    code = exit_code_of(app, prog_name, arguments, termination)
    termination.settle()
    # CPython notes that Ctrl-C ended the text of an exec(), as dataclasses use while a module
    # loads, and `python -m` then ends by SIGINT whatever the exit code is. The next text clears it.
    eval("None")
    sys.exit(code)


def _limit_width() -> None:
    """Ignore a COLUMNS beyond any terminal: Rich fills each line of a help text with spaces."""
    width = os.environ.get("COLUMNS", "")
    if width.isdigit() and len(width) > _WIDEST:
        del os.environ["COLUMNS"]


def _replace_closed_streams() -> None:
    """Discard what is printed to a stream that the caller closed (`>&-`).

    Python has None for such a stream, print() then writes to the other one, and the next file that
    is opened takes its number, which libraries print to.
    """
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            sink = os.open(os.devnull, os.O_WRONLY)
            if sink != number:
                os.dup2(sink, number)
                os.close(sink)
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))


def _print_any_character() -> None:
    """Escape what stdout or stderr cannot encode, such as a file name, instead of failing.

    A redirected stream may be cp1252 or ASCII, and names on Linux may be no text at all. A way of
    the user's to handle such characters stays (PYTHONIOENCODING).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            if not (utf8 and stream.errors == "surrogateescape"):
                stream.reconfigure(errors="backslashreplace")


def exit_code_of(
    app: typer.Typer,
    prog_name: str,
    arguments: Sequence[str],
    termination: Termination | None = None,
) -> int:
    """Run an app, report an error as one line on stderr, and return the exit code."""
    code = _run(app, prog_name, arguments)
    if code != _INTERRUPTED:
        return code
    if termination is None or not termination.seen:
        report("interrupted")
        return _INTERRUPTED
    report("terminated")
    return termination.exit_code


def _run(app: typer.Typer, prog_name: str, arguments: Sequence[str]) -> int:
    """Run an app, report an error, and return the exit code; the caller reports interruptions."""
    try:
        command = typer.main.get_command(app)
        check_completion(arguments)
        # Outside standalone mode Typer returns the code of typer.Exit, or None.
        # Newer Typer turns Ctrl-C into the code 130 and prints nothing.
        code = command.main(list(arguments), prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, typer.Abort):
        return _INTERRUPTED
    except BrokenPipeError:
        return _discard_output()
    except SystemExit as end:  # Typer's answer to a closed pipe, with the code 1
        cause = end.__context__
        if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
            return _discard_output()
        raise
    except Exception as error:
        if "--debug" in arguments:
            raise
        if was_interrupted(error):
            return _INTERRUPTED
        message, code = _explain(error, prog_name)
        report(message)
        _discard_output()
        return code
    return int(code or 0)


def _discard_output() -> int:
    """Keep the interpreter from failing at exit; return the code of a pipe without a reader.

    At exit it writes what is left to a pipe without a reader, or to a disk that is full.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            sink = os.open(os.devnull, os.O_WRONLY)
            os.dup2(sink, stream.fileno())
            os.close(sink)
    return _READER_GONE


def _repeat_interrupt(termination: Termination, lost: sys.UnraisableHookArgs) -> None:
    """Repeat a Ctrl-C that Python dropped because it came while a `__del__` ran."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    termination.expect_repeat()
    if sys.platform == "win32":
        again = threading.Timer(_REPEAT_AFTER, _thread.interrupt_main)
    else:  # a signal also interrupts a wait
        target = (threading.main_thread().ident, signal.SIGINT)
        again = threading.Timer(_REPEAT_AFTER, signal.pthread_kill, target)
    again.daemon = True
    again.start()


def report(message: str) -> None:
    """Print `error: ...` on stderr as one line, with control characters escaped."""
    try:
        print("error:", message_line(message), file=sys.stderr, flush=True)
    except OSError:  # nobody reads it or its disk is full, and the exit code says it too
        _discard_output()


def _explain(error: Exception, prog_name: str) -> tuple[str, int]:
    """Return the message for an exception and the exit code."""
    if isinstance(error, ModuleNotFoundError) and (missing := _explain_missing(error, prog_name)):
        return missing, 2
    if isinstance(error, GlesamError):
        return str(error), error.exit_code
    if isinstance(error, _usage_errors()):
        text = getattr(error, "format_message", error.__str__)()
        return f"{text} (--help shows the options)", 2
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'output'}: no space left; free some or choose another disk", 2
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror or error}", 2
    if isinstance(error, MemoryError):
        return "not enough memory; use smaller images or fewer prompts per call", 2
    kind = type(error).__name__
    return f"a bug in this program, {kind}: {error}; please report it with the output of --debug", 1


def _explain_missing(error: ModuleNotFoundError, prog_name: str) -> str | None:
    """Return which extra to install, None if no extra has the module: then it is a bug."""
    module = error.name or ""
    package = module.partition(".")[0]
    order = list(_EXTRAS)
    extra = next((name for name, modules in _EXTRAS.items() if package in modules), None)
    if extra is None:
        return None
    extra = max(extra, _EXTRA_OF_PROGRAM.get(prog_name, extra), key=order.index)
    if module == package:
        return f"{package} is not installed: pip install 'glesam-deploy[{extra}]'"
    return (
        f"the installed {package} is too old or too new, because it has no {module}: "
        f"pip install -U 'glesam-deploy[{extra}]'"
    )


def _usage_errors() -> tuple[type[Exception], ...]:
    """Return the base class of usage errors: recent Typer has its own, older Typer uses click's."""
    own: type[Exception] | None = getattr(typer, "TyperException", None)
    if own is not None:
        return (own,)
    import click

    return (click.ClickException,)
