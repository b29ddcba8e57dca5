"""The public API is frozen: names and signatures are those of public_api.txt."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import glesam_runtime

FROZEN = Path(__file__).with_name("public_api.txt")


def test_the_public_api_is_the_frozen_one() -> None:
    current = "".join(f"{line}\n" for line in describe_api())
    assert current == FROZEN.read_text(), (
        "the public API of glesam_runtime changed. If that is intended, add a line to CHANGELOG.md "
        "and run: python tests/runtime/test_public_api.py > tests/runtime/public_api.txt"
    )


def test_every_public_name_exists_and_is_listed() -> None:
    assert sorted(glesam_runtime.__all__) == glesam_runtime.__all__
    for name in glesam_runtime.__all__:
        assert getattr(glesam_runtime, name)
        assert name in dir(glesam_runtime)


def describe_api() -> Iterator[str]:
    """Yield a line for each public name and each public member of a class."""
    for name in glesam_runtime.__all__:
        thing = getattr(glesam_runtime, name)
        if inspect.isfunction(thing):
            yield name + signature(thing)
        elif issubclass(thing, Exception):
            yield f"class {name}({thing.__base__.__name__})"
        elif thing is glesam_runtime.EngineOptions:
            yield f"class {name}: keyword options, which test_backends.py lists"
        else:
            yield f"class {name}"
            yield from (f"    {line}" for line in members(thing))


def members(kind: type[Any]) -> Iterator[str]:
    """Yield the constructor, properties and methods of a class, or the keys of a TypedDict."""
    if typing.is_typeddict(kind):
        yield from (f"{name}: {spell(hint)}" for name, hint in kind.__annotations__.items())
        return
    yield "__init__" + signature(kind)
    fields = {field.name for field in dataclasses.fields(kind)} if is_dataclass(kind) else set()
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name.startswith("_") or name in fields or name not in names_of_ours(kind):
            continue
        if isinstance(member, property):
            yield f"{name}{signature(member.fget)}".replace("()", "")
        elif inspect.isfunction(member):
            yield name + signature(member)


def names_of_ours(kind: type[Any]) -> set[str]:
    """Return the attributes that classes of the runtime define, without those of the builtins."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("glesam_runtime")]
    return {name for base in ours for name in vars(base)}


def signature(thing: Any) -> str:
    """Spell a signature alike in every version of Python; `self` is left out."""
    found = inspect.signature(thing)
    spelled, keyword_only = [], False
    for parameter in found.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            spelled.append("*")
            keyword_only = True
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        spelled.append(f"{parameter.name}: {spell(parameter.annotation)}{default}")
    returned = found.return_annotation
    arrow = "" if returned is found.empty else f" -> {spell(returned)}"
    return f"({', '.join(spelled)}){arrow}"


def spell(hint: Any) -> str:
    """Spell an annotation as the source does."""
    text = hint.__forward_arg__ if isinstance(hint, typing.ForwardRef) else hint
    return text if isinstance(text, str) else getattr(text, "__name__", str(text))


if __name__ == "__main__":
    print("\n".join(describe_api()))
