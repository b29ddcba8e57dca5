"""Find the commands that both pyproject files declare, and describe their options.

The site's command-line reference and the tests of the pages read commands from here, so that
neither has a list of its own.
"""

from __future__ import annotations

import importlib
import sys
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
FLOORS = ("runtime", "evaluation", "calibration", "export", "benchmark", "training", "serving")


def commands() -> dict[str, Any]:
    """Return every command of the project, by its name, in the order of the pyproject files."""
    return {name: typer.main.get_command(_app(target)) for name, target in scripts().items()}


def scripts() -> dict[str, str]:
    """Return the entry points that the pyproject files declare: name -> "module:function"."""
    found: dict[str, str] = {}
    for file in (ROOT / "runtime" / "pyproject.toml", ROOT / "pyproject.toml"):
        if file.exists():
            found |= tomllib.loads(file.read_text())["project"].get("scripts", {})
    return found


def _app(target: str) -> typer.Typer:
    """Return the one Typer app of the module that an entry point names."""
    module = importlib.import_module(target.partition(":")[0])
    apps = [value for value in vars(module).values() if isinstance(value, typer.Typer)]
    if len(apps) != 1:
        raise ValueError(f"{module.__name__}: has {len(apps)} Typer apps, one is needed")
    return apps[0]


def import_from_the_checkout() -> None:
    """Put the floors of this checkout on the import path, so that nothing has to be installed."""
    for floor in reversed(FLOORS):
        if (ROOT / floor).is_dir() and str(ROOT / floor) not in sys.path:
            sys.path.insert(0, str(ROOT / floor))


def markdown(name: str, command: Any) -> str:
    """Describe a command and its subcommands: a heading, a usage line and tables of options."""
    return "\n".join(_lines(name, command, level=2)) + "\n"


def _lines(name: str, command: Any, level: int) -> Iterator[str]:
    yield f"{'#' * level} {name}\n"
    if command.help:
        yield _paragraphs(command.help) + "\n"
    yield f"```text\n{_usage(name, command)}\n```\n"
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    if arguments:
        yield "| argument | meaning |\n|---|---|"
        yield from (f"| `{_value_name(p)}` | {_meaning(p)} |" for p in arguments)
        yield ""
    panels = list(dict.fromkeys(getattr(p, "rich_help_panel", None) for p in options))
    for panel in sorted(panels, key=lambda each: each is not None):
        yield f"| {panel.lower() + ' ' if panel else ''}option | meaning |\n|---|---|"
        for option in options:
            if getattr(option, "rich_help_panel", None) == panel and not option.hidden:
                yield f"| {_names(option)} | {_meaning(option)} |"
        yield ""
    for subname, sub in getattr(command, "commands", {}).items():
        yield from _lines(f"{name} {subname}", sub, level + 1)


def _usage(name: str, command: Any) -> str:
    """Return the line that shows how a command is called."""
    if getattr(command, "commands", None):
        return f"{name} COMMAND [OPTIONS]"
    parts = [name]
    for parameter in command.params:
        value = _value_name(parameter)
        if parameter.param_type_name == "argument":
            parts.append(value if parameter.required else f"[{value}]")
        elif parameter.required:
            parts.append(f"{parameter.opts[0]} {value}")
    return " ".join([*parts, "[OPTIONS]"])


def _names(option: Any) -> str:
    """Return an option's names and the value it takes, as code."""
    value = "" if option.is_flag else f" {_value_name(option)}"
    return ", ".join(f"`{each}{value}`" for each in [*option.opts, *option.secondary_opts])


def _value_name(parameter: Any) -> str:
    """Return the placeholder of a parameter's value, with dots where it may be repeated."""
    name = parameter.metavar or parameter.name.upper()
    several = parameter.param_type_name == "argument" and parameter.nargs == -1
    return f"{name}..." if several and not name.endswith("...") else name


def _meaning(parameter: Any) -> str:
    """Return a parameter's help, its choices, and its default where the help has none."""
    text = " ".join((parameter.help or "").split())
    notes = []
    choices = _choices(parameter)
    if choices:
        notes.append("One of " + ", ".join(f"`{each}`" for each in choices) + ".")
    if parameter.required and parameter.param_type_name == "option":
        notes.append("Required.")
    default = parameter.default
    is_shown = isinstance(default, (str, int, float, Path)) and not isinstance(default, bool)
    if is_shown and not getattr(parameter, "is_flag", False) and "default" not in text.lower():
        value = default.value if isinstance(default, Enum) else default
        notes.append(f"Default: `{value}`.")
    return _escape(" ".join([text, *notes]).strip())


def _choices(parameter: Any) -> list[str]:
    """Return the values that an enumeration or a Literal allows."""
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    return [str(each) for each in typing.get_args(kind) if isinstance(each, str)]


def _paragraphs(text: str) -> str:
    """Return help text as Markdown: one line a paragraph, `<stem>` kept as it is written."""
    blocks = text.replace("\b", "").strip().split("\n\n")
    return "\n\n".join(_escape(" ".join(block.split())) for block in blocks)


def _escape(text: str) -> str:
    """Return text that neither a table nor HTML takes for markup."""
    for plain, escaped in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("_", "\\_"), ("[", "\\[")):
        text = text.replace(plain, escaped)
    return text
