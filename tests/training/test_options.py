"""An option of the training commands is declared once, and every command that needs it has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from glesam_export.weight_options import WeightOptions
from glesam_runtime.console import exit_code_of
from glesam_training import cli, evaluate_cli
from glesam_training.options import DataOptions, NanoOptions, TrainingOptions


def commands() -> Iterator[tuple[str, typer.models.CommandInfo]]:
    for app in (cli.app, evaluate_cli.app):
        for command in app.registered_commands:
            assert command.callback is not None
            yield command.name or "evaluate", command


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (DataOptions, {"enhancer", "decoder", "evaluate"}),
        (WeightOptions, {"enhancer", "decoder"}),
        (TrainingOptions, {"enhancer", "decoder"}),
        (NanoOptions, {"nano", "nano-table", "ablate"}),
    ],
)
def test_a_group_reaches_its_commands(group: type, names: set[str]) -> None:
    from inspect import signature

    wanted = {field.name for field in fields(group)}
    found = {
        name
        for name, command in commands()
        if wanted <= set(signature(command.callback).parameters)  # type: ignore[arg-type]
    }
    assert found == names


def test_training_from_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run: Callable[[str], int] = lambda line: exit_code_of(cli.app, "glesam-train", line.split())  # noqa: E731
    fast = "--iterations 1 --batch 1 --workers 0 --masks 1"
    weights = "--preset nano --random-weights 0"
    assert run(f"enhancer scenes:1 -o {tmp_path} {weights} {fast}") == 0
    assert str(tmp_path / "checkpoint.safetensors") in capsys.readouterr().out
    assert run(f"enhancer scenes:1 -o {tmp_path} {weights} --checkpoint x {fast}") == 2
    assert "exclude each other" in capsys.readouterr().err
