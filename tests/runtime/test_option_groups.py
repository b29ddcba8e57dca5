"""A dataclass among a command's parameters becomes options of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from glesam_runtime.option_groups import expand_groups, option, to_arguments


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="Across.")] = 3
    names: Annotated[list[str] | None, typer.Option("--name")] = None
    height: int = field(default_factory=lambda: 4)


@dataclass(frozen=True)
class Needed:
    depth: int


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()

    @app.command()
    @expand_groups
    def show(first: str, size: Size, last: bool = False) -> None:
        """Show what was given."""
        print(first, size, last)

    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_defaults() -> None:
    assert run("a") == (0, f"a {Size()} False\n")


def test_given() -> None:
    code, out = run("a", "--width", "5", "--name", "x", "--name", "y", "--last")
    assert (code, out) == (0, f"a {Size(5, ['x', 'y'], 4)} True\n")


def test_help_shows_each() -> None:
    _, out = run("--help")
    assert all(word in out for word in ("--width", "Across.", "--name", "--height", "--last"))
    assert "size" not in out.lower().replace("resize", "")
    assert "Show what was given." in out


def test_wrong() -> None:
    code, out = run("a", "--width", "x")
    assert code == 2
    assert "--width" in out


def test_a_field_without_a_default_must_be_given() -> None:
    app = typer.Typer()

    @app.command()
    @expand_groups
    def show(needed: Needed) -> None:
        print(needed)

    runner = CliRunner()
    assert runner.invoke(app, []).exit_code == 2
    assert runner.invoke(app, ["2"]).output == f"{Needed(2)}\n"  # an argument, as Typer has it


def test_two_of_one_name() -> None:
    def show(width: int, size: Size) -> None:
        """Never called."""

    with pytest.raises(TypeError, match="two parameters of one name"):
        expand_groups(show)


@dataclass(frozen=True)
class Described:
    fast: bool = field(default=False, metadata=option("Be quick."))
    work_load: int | None = field(default=None, metadata=option("How much.", minimum=1))
    kept: int = field(default=1, init=False)


def described(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()

    @app.command()
    @expand_groups
    def show(group: Described) -> None:
        print(group)

    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_a_described_field_needs_no_typer() -> None:
    assert described() == (0, f"{Described()}\n")
    assert described("--fast", "--work-load", "2") == (0, f"{Described(True, 2)}\n")
    code, out = described("--work-load", "0")
    assert code == 2
    assert "--work-load" in out
    _, out = described("--help")
    assert "Be quick." in out
    assert "--no-fast" not in out
    assert "--kept" not in out


def test_arguments_give_the_group_again() -> None:
    group = Described(True, 7)
    assert to_arguments(group) == ["--fast", "--work-load", "7"]
    assert described(*to_arguments(group)) == (0, f"{group}\n")
    assert to_arguments(Described()) == []
