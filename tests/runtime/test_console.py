"""Every error is reported as one line and an exit code."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
import typer

from glesam_runtime import BundleError, InputError, ParityError
from glesam_runtime.console import exit_code_of, make_app


def app_that_raises(error: BaseException | None) -> typer.Typer:
    app = make_app("A test.")

    @app.command()
    def run(count: int = 1, debug: bool = False) -> None:
        if error is not None:
            raise error
        print("done", count)

    return app


CASES = [
    (InputError("x.jpg: bad\n  news"), 2, "error: x.jpg: bad news"),
    (BundleError("b"), 2, "error: b"),
    (ParityError("off"), 1, "error: off"),
    (OSError(errno.ENOSPC, "No space left on device", "a.png"), 2, "error: a.png: no space left"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory", "c"), 2, "error: c: No such"),
    (MemoryError(), 2, "error: not enough memory"),
    (ZeroDivisionError("division"), 1, "error: a bug in this program, ZeroDivisionError"),
    (typer.BadParameter("wrong"), 2, "error: Invalid value: wrong"),
    (KeyboardInterrupt(), 130, "error: interrupted"),
]


@pytest.mark.parametrize(("error", "code", "words"), CASES, ids=lambda value: str(value)[:20])
def test_errors(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(app_that_raises(error), "t", []) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(words)
    assert err.count("\n") == 1


def test_codes_of_typer_exit_and_of_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(app_that_raises(typer.Exit(3)), "t", []) == 3
    assert exit_code_of(app_that_raises(typer.Abort()), "t", []) == 130
    assert exit_code_of(app_that_raises(None), "t", ["--count", "7"]) == 0
    assert capsys.readouterr().out == "done 7\n"


@pytest.mark.parametrize("arguments", [["--nonsense"], ["--count", "x"], ["stray"], ["--count"]])
def test_wrong_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code_of(app_that_raises(None), "t", arguments) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("error: ")
    assert "--help" in err


def test_debug_lets_the_traceback_through() -> None:
    with pytest.raises(InputError):
        exit_code_of(app_that_raises(InputError("x")), "t", ["--debug"])


DEAF = """
import signal, time
from glesam_runtime.console import make_app, run_app

signal.signal(signal.SIGINT, signal.default_int_handler)
app = make_app("A test.")

class Deaf:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)

@app.command()
def run():
    Deaf()
    print("goes on", flush=True)
    time.sleep(20)
    print("done")

run_app(app, "t")
"""


def test_ctrl_c_while_an_object_is_taken_apart() -> None:
    """Check that Ctrl-C still ends the program when Python drops it because `__del__` runs."""
    done = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "goes on\n", "error: interrupted\n")
