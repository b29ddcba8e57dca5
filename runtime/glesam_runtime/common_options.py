"""Give every command of every program the options that all have, and every program completion."""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import platform
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

from glesam_runtime.errors import InputError
from glesam_runtime.verbosity import print_detail, set_verbosity, timed_detail

Command = TypeVar("Command", bound=Callable[..., Any])


def _show_version(context: typer.Context, asked: bool) -> None:
    if asked:
        print(f"{context.find_root().info_name} {_version()}")
        raise typer.Exit


def _version() -> str:
    from glesam_runtime import __version__

    return str(__version__)


_VERSION = Annotated[
    bool | None,
    typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
]
_COMMON: dict[str, Any] = {
    "verbose": Annotated[
        bool,
        typer.Option("--verbose", "-v", help="Also print what runs and how long each step takes."),
    ],
    "quiet": Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="Print no notes and no progress; warnings and errors stay."
        ),
    ],
    "debug": Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")],
}
"""`console.exit_code_of` looks for --debug among the arguments, because an error can come before
they are parsed."""

_CONTEXT = {"help_option_names": ["--help", "-h"]}


class App(typer.Typer):
    """A Typer app whose commands have the common options; they need not declare them."""

    has_commands = False

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Command], Command]:
        """Register a command, with the common options after its own."""
        settings.setdefault("context_settings", _CONTEXT)
        register = super().command(name, **settings)

        def decorate(command: Command) -> Command:
            register(_with_common_options(command, version=not self.has_commands))
            return command

        return decorate


class WithDefault(TyperGroup):
    """A group with a default command: `program BUNDLE` runs `program DEFAULT BUNDLE`."""

    default = ""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the default command if no command is named and there is something to parse."""
        own = {name for parameter in self.params for name in parameter.opts}
        named = {*self.commands, *own, *_CONTEXT["help_option_names"]}
        if not (args and args[0] in named) and (args or not self.no_args_is_help):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


def make_app(
    help_text: str,
    *,
    commands: bool = False,
    group: type[TyperGroup] | None = None,
    no_args_is_help: bool = False,
) -> App:
    """Create an app for `console.run_app`, which reports its errors.

    Args:
        help_text: what the program does, in one sentence.
        commands: whether the program has commands of its own (`program COMMAND`).
        group: the class of the group of commands, such as one with a default.
        no_args_is_help: whether the program shows its help if it is called without arguments.
    """
    app = App(
        help=help_text,
        cls=group,
        no_args_is_help=no_args_is_help,
        context_settings=_CONTEXT,
        pretty_exceptions_enable=False,
    )
    app.has_commands = commands
    if commands:

        @app.callback(help=help_text)
        def common(version: _VERSION = None) -> None:
            """Declare the options that stand before the command."""

    return app


def check_completion(arguments: Sequence[str]) -> None:
    """Refuse to show or install completion where Typer could not tell the shell.

    Raises:
        InputError: no shell is among the parents of this process.
    """
    asked = {"--show-completion", "--install-completion"} & set(arguments)
    if not asked:
        return
    shellingham: Any = importlib.import_module("shellingham")  # Typer installs it
    try:
        shellingham.detect_shell()
    except shellingham.ShellDetectionFailure as error:
        raise InputError(
            f"{min(asked)}: no shell started this program; run it in bash, zsh, fish or PowerShell"
        ) from error


def _with_common_options(command: Callable[..., Any], *, version: bool) -> Callable[..., Any]:
    """Return a command that takes the common options too and applies them."""
    hints = typing.get_type_hints(command, include_extras=True)
    parameters = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[each.name])
        for each in inspect.signature(command).parameters.values()
    ]
    added = {**_COMMON, **({"version": _VERSION} if version else {})}
    for name, kind in added.items():
        default = None if name == "version" else False
        parameters.append(
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind
            )
        )

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        asked = {name: given.pop(name) for name in added}
        set_verbosity(**{name: asked[name] for name in _COMMON})
        if asked["verbose"]:
            print_detail(
                f"glesam {_version()}, Python {platform.python_version()}, {platform.system()} "
                f"{platform.machine()}, {os.cpu_count()} CPUs"
            )
        with timed_detail("total"):
            return command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
