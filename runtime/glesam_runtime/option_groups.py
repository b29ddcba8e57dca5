"""Make command-line options from the fields of a dataclass, so that each is declared once."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

R = TypeVar("R")

_KEY = "option"


def option(
    help_text: str, *, panel: str | None = None, **settings: Any
) -> Mapping[str, Mapping[str, Any]]:
    """Describe a dataclass field's command-line option. Return the `metadata` of the field.

    The dataclass needs no Typer, so a library can declare its options with it.

    Args:
        help_text: text for --help.
        panel: heading of its group in --help.
        settings: `minimum` and `maximum` (of a number), `metavar`, `show_default`.
    """
    return {_KEY: {"help": help_text, "rich_help_panel": panel, **settings}}


def help_of(field: dataclasses.Field[Any]) -> str:
    """Return the help text that `option` gave a field."""
    return str(field.metadata[_KEY]["help"])


def flag(name: str) -> str:
    """Return the option of a field: "cuda_graphs" -> "--cuda-graphs"."""
    return "--" + name.replace("_", "-")


def to_arguments(group: Any) -> list[str]:
    """Return the command-line words for a group's values that are not the default."""
    words: list[str] = []
    for field in dataclasses.fields(group):
        value = getattr(group, field.name)
        if not field.init or value == _default(field):
            continue
        words += [flag(field.name)] if value is True else [flag(field.name), str(value)]
    return words


def expand_groups(command: Callable[..., R]) -> Callable[..., R]:
    """Replace each parameter whose type is a dataclass by one parameter for each of its fields.

    Typer then offers an option for each field, described by `option` or by the field's own
    `Annotated` type. The command still receives the dataclass. A field with `init=False` gets no
    option.

    Raises:
        TypeError: a field has the name of another parameter.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {
        name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)
    }
    members: dict[str, list[str]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = groups.get(parameter.name)
        if group is None:
            parameters.append(_parameter(parameter.name, hints[parameter.name], parameter.default))
            continue
        kinds = typing.get_type_hints(group, include_extras=True)
        fields = [field for field in dataclasses.fields(group) if field.init]
        members[parameter.name] = [field.name for field in fields]
        parameters += [
            _parameter(field.name, _annotation(field, kinds[field.name]), _default(field))
            for field in fields
        ]
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise TypeError(f"{command.__name__}: two parameters of one name among {names}")

    @functools.wraps(command)
    def expanded(**given: Any) -> R:
        for name, fields in members.items():
            given[name] = groups[name](**{field: given.pop(field) for field in fields})
        return command(**given)

    signature = inspect.Signature(parameters)
    expanded.__signature__ = signature  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def _annotation(field: dataclasses.Field[Any], kind: Any) -> Any:
    """Return a field's type, with a Typer option where `option` describes one."""
    if _KEY not in field.metadata:
        return kind
    import typer

    settings = dict(field.metadata[_KEY])
    settings["min"] = settings.pop("minimum", None)
    settings["max"] = settings.pop("maximum", None)
    settings.setdefault("show_default", field.default not in (None, False))
    return Annotated[kind, typer.Option(flag(field.name), **settings)]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return a keyword-only parameter, so that those with a default may come first."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty
