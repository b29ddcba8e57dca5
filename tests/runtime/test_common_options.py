"""Every command of every program has the common options, and every program has completion."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any

import pytest
import typer

from glesam_runtime import GleSamPredictor, console, verbosity
from glesam_runtime.common_options import App, make_app
from glesam_runtime.verbosity import print_detail, print_note, print_progress, timed_detail

PROGRAMS = {
    "glesam-run": ("glesam_runtime.cli", "app"),
    "glesam-degrade": ("glesam_evaluation.degrade_cli", "degrade_app"),
    "glesam-calibrate": ("glesam_calibration.cli", "app"),
    "glesam-export": ("glesam_export.cli", "app"),
    "glesam-bench": ("glesam_benchmark.cli", "app"),
    "glesam-train": ("glesam_training.cli", "app"),
    "glesam-serve": ("glesam_serving.cli", "app"),
    "glesam-batch": ("glesam_serving.batch.cli", "app"),
    "glesam-triton": ("glesam_serving.triton.cli", "app"),
    "glesam-evaluate": ("glesam_training.evaluate_cli", "app"),
}


@pytest.fixture(autouse=True)
def _reset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_level", "_debug"):
        monkeypatch.setattr(verbosity, name, getattr(verbosity, name))


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> tuple[str, App]:
    module, name = PROGRAMS[request.param]
    return request.param, getattr(importlib.import_module(module), name)


def leaves(command: Any) -> list[Any]:
    below = getattr(command, "commands", {}).values()
    return [leaf for each in below for leaf in leaves(each)] if below else [command]


def options(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def test_each_program_has_them(
    program: tuple[str, App], capsys: pytest.CaptureFixture[str]
) -> None:
    name, app = program
    whole = typer.main.get_command(app)
    assert {"--version", "--install-completion", "--show-completion"} <= options(whole)
    for command in leaves(whole):
        assert {"--verbose", "-v", "--quiet", "-q", "--debug"} <= options(command)
    assert console.exit_code_of(app, name, ["--version"]) == 0
    assert capsys.readouterr().out == f"{name} {version('glesam-runtime')}\n"
    for help_option in ("--help", "-h"):
        assert console.exit_code_of(app, name, [help_option]) == 0
    short, long = capsys.readouterr().out.split("Usage:")[1:]
    assert short.strip() == long.strip()


def test_the_programs_are_all(pytestconfig: pytest.Config) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    declared: set[str] = set()
    for file in ("pyproject.toml", "runtime/pyproject.toml"):
        text = (pytestconfig.rootpath / file).read_text()
        declared |= set(tomllib.loads(text)["project"]["scripts"])
    assert declared == set(PROGRAMS)


@pytest.mark.parametrize(
    ("name", "words", "wanted"),
    [
        ("glesam-run", "glesam-run --no-", {"--no-files", "--no-enhance"}),
        ("glesam-run", "glesam-run --vers", {"--version"}),
        ("glesam-calibrate", "glesam-calibrate sens", {"sensitivity"}),
        ("glesam-train", "glesam-train decoder --qu", {"--quiet"}),
    ],
)
def test_completion(name: str, words: str, wanted: set[str]) -> None:
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    at = str(len(words.split()) - 1)
    env = os.environ | {variable: "complete_bash", "COMP_WORDS": words, "COMP_CWORD": at}
    script = f"from {PROGRAMS[name][0]} import main; main()"
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == wanted


def test_completion_without_a_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shellingham

    def fail() -> None:
        raise shellingham.ShellDetectionFailure

    monkeypatch.setattr(shellingham, "detect_shell", fail)
    app = importlib.import_module("glesam_runtime.cli").app
    assert console.exit_code_of(app, "glesam-run", ["--show-completion"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: --show-completion: no shell started this program")
    assert err.count("\n") == 1


@pytest.fixture
def talking() -> App:
    app = make_app("A test.")

    @app.command()
    def run() -> None:
        print_note("a note")
        print_progress("1 of 2")
        with timed_detail("a step"):
            print_detail("engine x")
        print("result")

    return app


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        ([], ["note: a note", "1 of 2"]),
        (["-q"], []),
        (["--quiet"], []),
        (["-v"], ["detail: glesam", "note: a note", "1 of 2", "detail: engine x"]),
    ],
)
def test_what_is_said(
    given: list[str], lines: list[str], talking: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.exit_code_of(talking, "t", given) == 0
    out, err = capsys.readouterr()
    assert out == "result\n"
    told = err.splitlines()
    for line, words in zip(told, lines, strict=False):
        assert line.startswith(words)
    times = [line.split(":")[1] for line in told[len(lines) :]]
    assert times == ([" a step", " total"] if "-v" in given else [])


def test_both_exclude_each_other(talking: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert console.exit_code_of(talking, "t", ["-q", "-v"]) == 2
    assert capsys.readouterr().err == (
        "error: --verbose and --quiet exclude each other; leave out one\n"
    )


def test_a_library_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    GleSamPredictor(backend="onnxruntime")
    assert capsys.readouterr() == ("", "")
