"""Every error is reported as one line and an exit code."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from glesam_runtime import BundleError, InputError, ParityError, console
from glesam_runtime.bundle import builtin_bundle_path
from glesam_runtime.common_options import make_app
from glesam_runtime.console import exit_code_of


def app_that_raises(error: BaseException | None) -> typer.Typer:
    app = make_app("A test.")

    @app.command()
    def run(count: int = 1) -> None:
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


def missing(name: str | None) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.mark.parametrize(
    ("program", "module", "code", "words"),
    [
        (
            "glesam-export",
            "torch",
            2,
            "torch is not installed: pip install 'glesam-deploy[export]'",
        ),
        ("glesam-export", "onnx", 2, "onnx is not installed: pip install 'glesam-deploy[export]'"),
        (
            "glesam-train",
            "torch",
            2,
            "torch is not installed: pip install 'glesam-deploy[training]'",
        ),
        (
            "glesam-degrade",
            "cv2",
            2,
            "cv2 is not installed: pip install 'glesam-deploy[calibration]'",
        ),
        (
            "glesam-calibrate",
            "torch",
            2,
            "torch is not installed: pip install 'glesam-deploy[export]'",
        ),
        (
            "glesam-export",
            "skimage",
            2,
            "skimage is not installed: pip install 'glesam-deploy[training]'",
        ),
        (
            "glesam-export",
            "torch.new",
            2,
            "the installed torch is too old or too new, because it has no",
        ),
        ("glesam-export", "glesam_export.folding", 1, "a bug in this program, ModuleNotFoundError"),
        ("glesam-export", "torchlike", 1, "a bug in this program, ModuleNotFoundError"),
        ("glesam-export", None, 1, "a bug in this program, ModuleNotFoundError"),
    ],
)
def test_a_missing_package_names_its_extra(
    program: str, module: str | None, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(app_that_raises(missing(module)), program, []) == code
    assert capsys.readouterr().err.startswith(f"error: {words}")


def test_the_extras_are_those_of_the_distribution() -> None:
    """Every module of an extra comes from a requirement of that extra."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    metadata = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    distributions = {
        "cv2": "opencv-python-headless",
        "onnx_ir": "onnx-ir",
        "prometheus_client": "prometheus-client",
        "python_multipart": "python-multipart",
        "segment_anything": "segment-anything",
        "skimage": "scikit-image",
    }
    for extra, modules in console._EXTRAS.items():
        required = metadata["project"]["optional-dependencies"][extra]
        named = {
            requirement.partition(">")[0].partition("[")[0]
            for requirement in required
            if ">" in requirement
        }
        assert {distributions.get(module, module) for module in modules} == named, extra
    alone = ("serve", "batch")  # they need no other extra
    chain = [extra for extra in console._EXTRAS if extra not in alone]
    for order in itertools.pairwise(chain):
        assert (
            f"glesam-deploy[{order[0]}]" in metadata["project"]["optional-dependencies"][order[1]]
        )


WITHOUT = """
import importlib, importlib.abc, sys
hidden, module, *arguments = sys.argv[1:]
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden.split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Wall())
sys.argv = [module, *arguments]
importlib.import_module(module).main()
"""

COMMANDS = [
    ("glesam_export.cli", ("onnx", "--preset", "nano", "-o", "out"), "export"),
    ("glesam_export.cli", ("info", "sam.pth"), "export"),
    ("glesam_export.cli", ("verify", "BUNDLE"), "export"),
    ("glesam_calibration.cli", ("BUNDLE", "image.png", "-o", "out", "--int8"), "calibration"),
    ("glesam_benchmark.cli", ("run",), "export"),
    ("glesam_training.cli", ("nano", "-o", "out"), "training"),
    ("glesam_serving.cli", ("--port", "0"), "serve"),
    ("glesam_serving.batch.cli", ("x.png", "--everything", "-o", "out"), "batch"),
]


@pytest.mark.parametrize(("module", "arguments", "extra"), COMMANDS, ids=lambda each: str(each))
def test_every_command_without_its_packages(
    module: str, arguments: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    modules = {name for names in console._EXTRAS.values() for name in names}
    given = [str(builtin_bundle_path()) if each == "BUNDLE" else each for each in arguments]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(modules), module, *given],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"is not installed: pip install 'glesam-deploy[{extra}]'" in done.stderr
    assert "bug" not in done.stderr


DEAF = """
import signal, time
from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app

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


LOADING = """
import signal, sys
from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app
from glesam_runtime.engine_libraries import import_onnxruntime

class Interrupted:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt as error:  # as compiled modules do
                raise ImportError("initialization failed") from error

sys.modules.pop("onnxruntime", None)
sys.meta_path.insert(0, Interrupted())
app = make_app("A test.")

@app.command()
def run(how: str):
    if how == "library":
        try:
            import_onnxruntime()
        except ImportError:
            print("taken for missing")
    else:
        exec("signal.raise_signal(signal.SIGTERM)", {"signal": signal})

run_app(app, "t")
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("how", ["library", "text"])
def test_sigterm_while_modules_load(how: str, tmp_path: Path) -> None:
    """`python -m` ends by SIGINT, not by the exit code, once Ctrl-C has ended an exec()."""
    (tmp_path / "loading.py").write_text(LOADING)
    command = [sys.executable, "-m", "loading", how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "error: terminated\n")


TERMINATED = """
import hashlib, signal, sys, time
from pathlib import Path
from glesam_runtime import termination
from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app
from glesam_runtime.staging import staged_file, staged_folder

termination._PATIENCE = 1.0
how, out = sys.argv.pop(), Path(sys.argv.pop())
app = make_app("A test.")

@app.command()
def run():
    with staged_folder(out / "folder") as folder, staged_file(out / "file") as file:
        (folder / "half").touch()
        file.touch()
        if how == "graceful":
            asked = []
            signal.signal(signal.SIGINT, lambda *_: asked.append(1))
        if how == "background":
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("goes on", flush=True)
        if how == "one long operation":
            hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
        elif how == "graceful":
            while not asked:
                time.sleep(0.01)
            time.sleep(2)
        else:
            time.sleep(30)
    print("completed")

run_app(app, "t")
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("how", ["python", "background", "one long operation", "graceful", "twice"])
def test_sigterm_ends_as_ctrl_c_does(how: str, tmp_path: Path) -> None:
    """Nothing partial is left, whatever the program does; a graceful handler completes."""
    with subprocess.Popen(
        [sys.executable, "-c", TERMINATED, str(tmp_path), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "goes on\n"
        process.terminate()
        asked = time.monotonic()
        if how == "twice":
            process.terminate()
        out, err = process.communicate(timeout=60)
        assert time.monotonic() - asked < 5
    if how == "graceful":
        assert (process.returncode, out, err) == (0, "completed\n", "")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
        return
    assert (process.returncode, out, err) == (143, "", "error: terminated\n")
    assert list(tmp_path.iterdir()) == []


FORKED = """
import multiprocessing, time
from glesam_runtime import termination
from glesam_runtime.common_options import make_app
from glesam_runtime.console import run_app

app = make_app("A test.")

termination._PATIENCE = 0.2

@app.command()
def run():
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=[30])
    worker.start()
    time.sleep(0.2)
    worker.terminate()
    worker.join(10)
    time.sleep(1)  # the parent's patience is shorter
    print(worker.exitcode)

run_app(app, "t")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_forked_worker_ends_quietly() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{-signal.SIGTERM}\n", "")


WORKER_ENDS_LATER = """
import os, signal, sys, time
import typer
from glesam_runtime.console import run_app

app = typer.Typer()

@app.command()
def run():
    signal.signal(signal.SIGINT, lambda *_: None)  # as a training that completes its iteration
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGCHLD)
    time.sleep(0.1)
    print("saved")

run_app(app, "t")
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_signals_after_sigterm_print_nothing() -> None:
    """A worker that ends while a training saves its state sends SIGCHLD."""
    command = [sys.executable, "-c", WORKER_ENDS_LATER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "saved\n", "")
