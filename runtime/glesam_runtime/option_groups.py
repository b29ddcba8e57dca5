"""Options that several commands share, written once: a dataclass becomes command-line options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")


def expand_groups(command: Callable[..., R]) -> Callable[..., R]:
    """Put a dataclass's fields in the place of a parameter of its type.

    Typer sees a parameter for each field, with the field's annotation and default; the command is
    called with the dataclass made of them.

    Raises:
        TypeError: a field has the name of another parameter.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {
        name: kind for name, kind in hints.items() if dataclasses.is_dataclass(kind)
    }
    fields: dict[str, list[str]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = groups.get(parameter.name)
        if group is None:
            parameters.append(_parameter(parameter.name, hints[parameter.name], parameter.default))
            continue
        kinds = typing.get_type_hints(group, include_extras=True)
        fields[parameter.name] = [field.name for field in dataclasses.fields(group)]
        parameters += [
            _parameter(field.name, kinds[field.name], _default(field))
            for field in dataclasses.fields(group)
        ]
    names = [parameter.name for parameter in parameters]
    if len(set(names)) < len(names):
        raise TypeError(f"{command.__name__}: two parameters of one name among {names}")

    @functools.wraps(command)
    def expanded(**given: Any) -> R:
        for name, members in fields.items():
            given[name] = groups[name](**{member: given.pop(member) for member in members})
        return command(**given)

    signature = inspect.Signature(parameters)
    expanded.__signature__ = signature  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """One that is given by name, so that those with a default may come first."""
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty
