"""How every command line of this project ends: one line for what is wrong, and an exit code.

0 done, 1 outside a gate or a fault of this program, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import _thread
import errno
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from glesam_runtime.errors import GlesamError

_INTERRUPTED = 130
_AGAIN_AFTER = 0.05
"""Seconds after which a Ctrl-C that was swallowed is given once more."""


def make_app(help_text: str) -> typer.Typer:
    """A Typer app whose errors `run_app` reports."""
    return typer.Typer(help=help_text, add_completion=False, pretty_exceptions_enable=False)


class WithDefault(TyperGroup):
    """Commands of which one may be left unnamed: `program BUNDLE` is `program DEFAULT BUNDLE`."""

    default = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name where it was left out; alone, a program may show its help."""
        unnamed = not (args and (args[0] in self.commands or args[0] in ("--help", "-h")))
        if unnamed and (args or not self.no_args_is_help):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def run_app(app: typer.Typer, prog_name: str) -> NoReturn:
    """Run an app on the process's arguments and exit.

    `--debug` anywhere among them shows the traceback behind an error.
    """
    arguments = sys.argv[1:]
    sys.unraisablehook = _interrupt_again
    sys.exit(exit_code_of(app, prog_name, arguments))


def exit_code_of(app: typer.Typer, prog_name: str, arguments: Sequence[str]) -> int:
    """Run an app; report what goes wrong on stderr, one line; return the exit code."""
    command = typer.main.get_command(app)
    try:
        # Outside standalone mode Typer returns the code of typer.Exit, or the command's None.
        code = command.main(list(arguments), prog_name=prog_name, standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # newer Typer turns Ctrl-C into this code itself, in silence
            report("interrupted")
    except (KeyboardInterrupt, typer.Abort):
        report("interrupted")
        return _INTERRUPTED
    except Exception as error:
        if "--debug" in arguments:
            raise
        message, code = _explain(error)
        report(message)
        return code
    return int(code or 0)


def _interrupt_again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops a Ctrl-C that comes while a `__del__` runs: give it again after that."""
    if lost.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(lost)
        return
    if sys.platform == "win32":
        again = threading.Timer(_AGAIN_AFTER, _thread.interrupt_main)
    else:  # a signal also ends a wait
        target = (threading.main_thread().ident, signal.SIGINT)
        again = threading.Timer(_AGAIN_AFTER, signal.pthread_kill, target)
    again.daemon = True
    again.start()


def report(message: str) -> None:
    """Print `error: ...` to stderr, on one line."""
    print("error:", " ".join(message.split()), file=sys.stderr, flush=True)


def _explain(error: Exception) -> tuple[str, int]:
    """What to tell the user of an exception, and the exit code."""
    if isinstance(error, GlesamError):
        return str(error), error.exit_code
    if isinstance(error, _usage_errors()):
        text = getattr(error, "format_message", error.__str__)()
        return f"{text} (--help shows the options)", 2
    if isinstance(error, BrokenPipeError):
        # The reader of stdout has gone; keep the interpreter from writing to it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "the output was closed before all of it was written", 1
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{error.filename or 'output'}: no space left; free some or choose another disk", 2
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror or error}", 2
    if isinstance(error, MemoryError):
        return "not enough memory; use a smaller image or fewer prompts at a time", 2
    kind = type(error).__name__
    return f"a fault of this program, {kind}: {error}; --debug shows where, please report it", 1


def _usage_errors() -> tuple[type[Exception], ...]:
    """The base of what a wrong command line raises: recent Typer has its own, older has click's."""
    own: type[Exception] | None = getattr(typer, "TyperException", None)
    if own is not None:
        return (own,)
    import click

    return (click.ClickException,)
