"""Prompts, options, variables, places and signals of the second list."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ..case import Case, Make, Place, accepted


def _prompts(name: str, content: str | bytes, says: str = "prompts.json", **further: Any) -> Case:
    """Return the case of a prompts file with this content."""

    def make(place: Place) -> list[Any]:
        path = place.write("prompts.json", content)
        return [place.photo(), "--prompts", path, *place.engine()]

    return Case("second prompts", name, make, says, **further)


def _options(name: str, *options: str, says: str = "", **further: Any) -> Case:
    """Return the case of an image with a point and these options."""
    return Case("second option", name, lambda p: p.command(*options), says, **further)


def _alone(name: str, *options: str, says: str = "", **further: Any) -> Case:
    """Return the case of an image with these options only."""
    return Case(
        "second option", name, lambda p: [p.photo(), *options, *p.engine()], says, **further
    )


_RUN: Make = lambda place: place.command()  # noqa: E731 - the type is the point


def _set(name: str, make: Make = _RUN, says: str = "", **further: Any) -> Case:
    """Return the case of a sound run in this environment."""
    expected = {"codes": (0,), "notes": True, **further}
    return Case("second environment", name, make, says, **expected)


def _output(name: str, path: Callable[[Place], Any], says: str = "", **further: Any) -> Case:
    """Return the case of another output folder."""

    def make(place: Place) -> list[Any]:
        return [*place.command()[:-1], path(place)]

    return Case("second output", name, make, says, **further)


def _linked_output(place: Place) -> Path:
    (place.root / "elsewhere").mkdir()
    place.out.symlink_to(place.root / "elsewhere")
    return place.out


def _mask_taken(change: Callable[[Path, Place], object]) -> Callable[[Place], Path]:
    """Return the function that puts something else where the mask belongs."""

    def path(place: Place) -> Path:
        place.out.mkdir()
        change(place.out / "photo_mask.png", place)
        return place.out

    return path


def _link_to_secret(path: Path, place: Place) -> None:
    path.symlink_to(place.secret)


def _mask_written(place: Place) -> str | None:
    path = place.out / "photo_mask.png"
    return None if path.is_file() and not path.is_symlink() else "no mask was written"


def _over_the_input(place: Place) -> list[Any]:
    """Let the mask of one image be another image, in the folder of both."""
    return [
        place.photo("a.png"),
        *place.command(image=place.photo("a_mask.png"))[:-1],
        place.inputs,
    ]


def _over_a_link(place: Place) -> list[Any]:
    """Let the input be a link to the name of its own mask."""
    image = place.photo("photo_mask.png").rename(place.root / "x")
    place.out.mkdir()
    target = place.out / "photo_mask.png"
    shutil.move(place.root / "x", target)
    (place.inputs / "photo.png").symlink_to(target)
    del image
    return place.command(image=place.inputs / "photo.png")


def _input_kept(place: Place) -> str | None:
    from PIL import Image

    image = Image.open(place.inputs / "photo.png")
    return None if image.mode == "RGB" else "the input was overwritten by its mask"


def _two_at_once(*options: str) -> Make:
    """Return the command of a run while four more of it write to the same folder."""

    def make(place: Place) -> list[Any]:
        command = [str(each) for each in [*place.command(), *options]]
        cache = place.root / "cache"
        cache.mkdir(mode=0o700)
        command += ["--cache", str(cache)]
        for _ in range(3):
            subprocess.Popen(
                [sys.executable, "-m", "glesam_runtime", *command],
                stdout=subprocess.DEVNULL,
                env={**os.environ, "HOME": str(place.home), "TMPDIR": str(place.root / "tmp")},
            )
        time.sleep(1.2)
        return command

    return make


def _all_ended(_: Place) -> str | None:
    """Wait for the runs beside, which must succeed as well."""
    codes = []
    while True:
        try:
            codes.append(os.waitstatus_to_exitcode(os.wait()[1]))
        except ChildProcessError:
            return None if codes == [0, 0, 0] else f"the other runs ended with {codes}"


def _bundle_in_use(pid: int, place: Place) -> None:
    """Exchange the encoder and the decoder again and again while the program opens them."""
    folder = place.inputs / "bundle"
    first, second, aside = (folder / name for name in ("encoder.onnx", "decoder.onnx", "aside"))
    for _ in range(300):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        first.rename(aside)
        second.rename(first)
        aside.rename(second)
        time.sleep(0.001)
    if aside.exists():
        aside.rename(second)


def _prompts_grow(pid: int, place: Place) -> None:
    """Append to the prompts while the program reads them."""
    for _ in range(200):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        with (place.inputs / "prompts.json").open("a") as file:
            file.write("," * 10_000)


def _growing(place: Place) -> list[Any]:
    path = place.write("prompts.json", json.dumps([{"points": [[9, 9]]}] * 2000))
    return [place.photo(), "--prompts", path, *place.engine()]


def _many(place: Place, count: int = 40) -> list[Any]:
    image = place.photo(width=600, height=600)
    images = [image.with_name(f"{n}.png") for n in range(count)]
    for path in images:
        os.link(image, path)
    return [*images, "--points", "9,9", *place.engine()]


def _send(*numbers: int, at_once: bool = False) -> Callable[[int, Place], None]:
    """Send signals as soon as the program has written a file, or started."""

    def during(pid: int, place: Place) -> None:
        end = time.monotonic() + 15
        while not at_once and not (place.out.is_dir() and any(place.out.iterdir())):
            assert time.monotonic() < end, "the program writes nothing"
            time.sleep(0.01)
        time.sleep(0.3 if at_once else 0)
        for number in numbers:
            os.kill(pid, number)
            time.sleep(0.003)

    return during


def _signalled(name: str, *numbers: int, at_once: bool = False, **expected: Any) -> Case:
    # A program that a signal ends gets more images than it finishes before even a late signal.
    ends = 0 not in expected["codes"]
    return Case(
        "second signal",
        name,
        partial(_many, count=400) if ends else _many,
        during=_send(*numbers, at_once=at_once),
        writes=True,
        separate=True,
        **expected,
    )


def _before(function: Callable[[], object]) -> Callable[[Place], None]:
    return lambda _: function() and None


_POINT = '{"points": [[1, 1]]}'
_TEXTS = {
    "the same key twice": '[{"points": [[1, 1]], "points": [[900, 900]]}]',
    "a box of numbers as text": '[{"box": ["1", "1", "9", "9"]}]',
    "a point of arrays": '[{"points": [[[1], [1]]]}]',
    "a label of a half": '[{"points": [[1, 1]], "labels": [0.5]}]',
    "a label of true": '[{"points": [[1, 1]], "labels": [true]}]',
    "a label of null": '[{"points": [[1, 1]], "labels": [null]}]',
    "labels without points": '[{"labels": [1], "box": [1, 1, 9, 9]}]',
    "more labels than points": '[{"points": [[1, 1]], "labels": [1, 0]}]',
    "a number with a leading zero": '[{"points": [[01, 1]]}]',
    "a hexadecimal number": '[{"points": [[0x1, 1]]}]',
    "a plus": '[{"points": [[+1, 1]]}]',
    "a trailing comma": f"[{_POINT},]",
    "a line for each prompt": f"{_POINT}\n{_POINT}\n",
    "a box in the corner beyond the image": '[{"box": [60.1, 40.1, 70, 50]}]',
    "a box of width 0": '[{"box": [5, 5, 5, 9]}]',
    "a box that begins below 0": '[{"box": [-1e9, 5, 9, 9]}]',
    "a point on the last edge": '[{"points": [[60.1, 40]]}]',
    "COCO": '{"images": [], "annotations": [{"bbox": [1, 1, 9, 9]}]}',
    "10^5 unknown keys": "[{" + ",".join(f'"k{n}": 1' for n in range(100_000)) + "}]",
    "escapes in a wrong value": '[{"points": "\\u0000\\u001b[2J\\u2028\\ud83d"}]',
}
_PROMPTS = [
    *(
        _prompts(name, text)
        for name, text in _TEXTS.items()
        if name not in ("the same key twice", "a box that begins below 0")
    ),
    _prompts("the same key twice", _TEXTS["the same key twice"], **accepted()),
    _prompts("a box that begins below 0", _TEXTS["a box that begins below 0"], **accepted()),
    _prompts("-0", '[{"points": [[-0.0, -0.0]]}]', codes=(0,), says=""),
    _prompts(
        "a number of 10^5 digits and an exponent, which is 1.1",
        f'[{{"points": [[{"1" * 100_000}e-99999, 1]]}}]',
        codes=(0,),
        says="",
    ),
    _prompts("10^6 empty prompts", "[" + "{}," * 999_999 + "{}]"),
    _prompts("10^5 empty points", '[{"points": [' + "[]," * 99_999 + "[]]}]"),
    _prompts("gzip", gzip.compress(f"[{_POINT}]".encode())),
    _prompts("UTF-32", f"[{_POINT}]".encode("utf-32")),
    _prompts("only a byte order mark", b"\xef\xbb\xbf"),
    _prompts("31 MB of spaces", b" " * (31 << 20) + f"[{_POINT}]".encode(), **accepted()),
    _prompts("33 MB of spaces", b" " * (33 << 20) + f"[{_POINT}]".encode(), "GLESAM_MAX_JSON"),
    Case(
        "second prompts",
        "the image itself",
        lambda p: [p.photo(), "--prompts", p.photo(), *p.engine()],
        "photo.png",
    ),
    Case(
        "second prompts",
        "an environment of a process",
        lambda p: [p.photo(), "--prompts", "/proc/self/environ", *p.engine()],
        "environ",
    ),
    Case(
        "second prompts",
        "a file that grows while it is read",
        _growing,
        during=_prompts_grow,
        changes=("inputs",),
        seconds=20,
        writes=True,
        mebibytes=400,
        **accepted(),
    ),
]
_OPTIONS = [
    _alone("points in full-width digits", "--points", "\uff11,\uff12", **accepted()),
    _alone("points in hexadecimal", "--points", "0x10,1", says="--points"),
    _alone("points of spaces", "--points", " , ", says="--points"),
    _alone("points with a line feed", "--points", "1,\n1\n", **accepted()),
    _alone("a label of 7", "--points", "1,1,7", says="label"),
    _alone("a label of NaN", "--points", "1,1,nan", says="--points"),
    _alone("only background", "--points", "1,1,0", **accepted()),
    _alone("a box of three", "--box", "1,2,3", says="--box"),
    _alone("a box of nothing", "--box", "3,3,3,3", says="--box"),
    _alone("a box that looks like an option", "--box", "-5,-5,9,9", **accepted()),
    _alone("a box of 5e-324", "--box", "0,0,5e-324,5e-324", **accepted()),
    _options("1024 streams", "--streams", "1024", codes=(0, 2), seconds=20, mebibytes=900),
    _options("a billion images in flight", "--in-flight", "1000000000", codes=(0, 2)),
    _options("a device of nothing", "--device", "", says="device"),
    _options("a device of a line feed", "--device", "cpu\n", **accepted()),
    _options("a device of a negative number", "--device", "cuda:-1", says="cuda"),
    _options("a device in capitals", "--device", "CPU", **accepted()),
    _options("a precision of onnxruntime", "--precision", "fp16", says="precision"),
    _options("a backend of a module", "--backend", "os", says="backend"),
    _options("a backend of nothing", "--backend", "", says="backend"),
    _options("a bundle of nothing", "--bundle", "", says=""),
    _options("CUDA graphs of a CPU", "--cuda-graphs", **accepted()),
    _options("a self-test with an image", "--selftest", says="selftest|self-test"),
    _options("a depth of 9", "--depth", "9", says="--depth"),
    _alone("everything and points", "--everything", "--points", "1,1", says="--everything|points"),
    Case(
        "second option",
        "everything and a wrong bundle",
        lambda p: [p.photo(), "--everything", *p.engine(p.inputs / "none")],
        "none",
    ),
    _alone(
        "a grid of a negative area", "--everything", "--min-mask-region-area", "-5", says="area"
    ),
    _alone("crops of 30 layers", "--everything", "--crop-n-layers", "30", says="crop"),
    _alone("crops of -1 layers", "--everything", "--crop-n-layers", "-1", says="crop"),
    _alone("crops of 5 overlaps", "--everything", "--crop-overlap-ratio", "5", says="crop"),
    _alone(
        "crops of 7 layers of a small image",
        "--everything",
        "--crop-n-layers",
        "5",
        "--points-per-side",
        "2",
        says="",
        codes=(0, 2),
        seconds=25,
    ),
    Case(
        "second option",
        "10000 images that do not exist",
        lambda p: [*(f"none{n}.png" for n in range(10_000)), *p.command()[1:]],
        "none",
        lines=10_000,
        seconds=15,
    ),
    Case("second option", "nothing at all", lambda _: [], "", lines=1),
    Case("second option", "an image of nothing", lambda p: p.command(image=""), ""),
    Case("second option", "an image of a dot", lambda p: p.command(image="."), ""),
    Case("second option", "an image of the root", lambda p: p.command(image="/"), ""),
    Case(
        "second option",
        "an image of a URL",
        lambda p: p.command(image="http://127.0.0.1:9/a.png"),
        "no such",
    ),
    Case(
        "second option",
        "an image of an XML entity",
        lambda p: p.command(image="file:///etc/passwd"),
        "no such",
    ),
]
_ENVIRONMENT = [
    _set("no fields at all", environment=dict.fromkeys(("PATH", "HOME", "TMPDIR", "LANG"))),
    _set("OMP_NUM_THREADS of letters", environment={"OMP_NUM_THREADS": "many"}, separate=True),
    _set("OMP_NUM_THREADS of -1", environment={"OMP_NUM_THREADS": "-1"}, separate=True),
    _set("COLUMNS of 0", environment={"COLUMNS": "0", "LINES": "0"}, separate=True),
    _set(
        "COLUMNS of -1, and help",
        lambda _: ["--help"],
        environment={"COLUMNS": "-1"},
        separate=True,
    ),
    _set(
        "COLUMNS of 1, and an error",
        lambda _: ["--none"],
        environment={"COLUMNS": "1"},
        codes=(2,),
        separate=True,
    ),
    _set(
        "COLUMNS of 10^9, and help",
        lambda _: ["--help"],
        environment={"COLUMNS": "1000000000"},
        separate=True,
    ),
    _set("no colours", environment={"NO_COLOR": "", "FORCE_COLOR": "3"}, separate=True),
    _set("Python's warnings as errors", environment={"PYTHONWARNINGS": "error"}, separate=True),
    _set("Python optimized", environment={"PYTHONOPTIMIZE": "2"}, separate=True),
    _set("Python of UTF-8 off", environment={"PYTHONUTF8": "0", "LC_ALL": "C"}, separate=True),
    _set("Python in development", environment={"PYTHONDEVMODE": "1"}, separate=True),
    _set("TMPDIR that is a file", environment={"TMPDIR": "/etc/passwd"}, separate=True),
    _set(
        "OpenBLAS of 10^9 threads",
        environment={"OPENBLAS_NUM_THREADS": "1000000000"},
        separate=True,
    ),
    _set(
        "Typer's variables",
        environment={"TYPER_STANDARD_TRACEBACK": "1"},
        separate=True,
        codes=(0, 2),
    ),
    _set(
        "every limit of nothing",
        environment={
            f"GLESAM_MAX_{name}": "" for name in ("SIDE", "POINTS", "PROMPTS", "JSON_MIB")
        },
    ),
    *(
        _set(f"{name}=-5", environment={name: "-5"}, codes=(0, 2), says=name)
        for name in (
            "GLESAM_MAX_SIDE",
            "GLESAM_MAX_POINTS",
            "GLESAM_MAX_PROMPTS",
            "GLESAM_MAX_MANIFEST_MIB",
        )
    ),
    _set("a umask of 777", before=_before(lambda: os.umask(0o777)), codes=(0, 2)),
    _set(
        "a file size of 0",
        before=_before(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))),
        codes=(2,),
        lines=0,  # stderr is a file
        separate=True,
    ),
    _set(
        "5 seconds of CPU time",
        before=_before(lambda: resource.setrlimit(resource.RLIMIT_CPU, (5, 6))),
    ),
    _set(
        "a stack of 300 KB",
        before=_before(lambda: resource.setrlimit(resource.RLIMIT_STACK, (300 << 10, 300 << 10))),
        codes=(0, 2),
    ),
    _set("nice of 19", before=_before(lambda: os.nice(19))),
    _set("SIGPIPE as usual", before=_before(lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))),
    _set(
        "SIGINT ignored",
        before=_before(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)),
        separate=True,
    ),
    _set(
        "all signals blocked",
        before=_before(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))),
        separate=True,
    ),
    _set(
        "SIGCHLD ignored",
        before=_before(lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)),
        separate=True,
    ),
]
_OUTPUT = [
    _output("nothing", lambda _: "", changes=("cwd",), **accepted()),
    _output("a dot", lambda _: ".", codes=(0,), changes=("cwd",)),
    _output("the bundle", lambda p: p.bundle(), codes=(0, 2), changes=("inputs",)),
    _output("a link to a folder", _linked_output, codes=(0,), changes=("elsewhere",)),
    _output("the root of /sys", lambda _: "/sys", "/sys", touches=("/sys",)),
    _output("below /dev/null", lambda _: "/dev/null/a/b", "/dev/null", touches=("/dev/null",)),
    _output("/proc/self/fd", lambda _: "/proc/self/fd", "/proc", touches=("/proc",)),
    _output("5000 characters", lambda p: p.root / ("o/" * 2500), "", **accepted()),
    _output("a name with a line feed", lambda p: p.out / "a\nb\x1b[2J", codes=(0,)),
    _output(
        "a name that is no text", lambda p: os.fsdecode(os.fsencode(p.out) + b"/\xff"), codes=(0,)
    ),
    _output(
        "the mask is a folder",
        _mask_taken(lambda path, _: path.mkdir()),
        "photo_mask.png",
        writes=True,
    ),
    _output(
        "the mask is a link to the secret",
        _mask_taken(_link_to_secret),
        codes=(0,),
        after=_mask_written,
    ),
    _output(
        "the mask is a FIFO",
        _mask_taken(lambda path, _: os.mkfifo(path)),
        codes=(0, 2),
        writes=True,
    ),
    _output(
        "the mask is a link to itself",
        _mask_taken(lambda path, _: path.symlink_to(path)),
        codes=(0, 2),
        writes=True,
    ),
    _output(
        "the mask is a link to /dev/full",
        _mask_taken(lambda path, _: path.symlink_to("/dev/full")),
        codes=(0, 2),
        writes=True,
        touches=("/dev/full",),
    ),
    Case(
        "second output",
        "the mask of one image is another image",
        _over_the_input,
        "input",
        changes=("inputs",),
        writes=True,
    ),
    Case(
        "second output",
        "the image is a link to its mask",
        _over_a_link,
        "input",
        after=_input_kept,
        writes=True,
    ),
]
_RACES = [
    Case(
        "second race",
        "four runs at once",
        _two_at_once(),
        codes=(0,),
        after=_all_ended,
        changes=("cache", "tmp", "home"),
        notes=True,
    ),
    Case(
        "second race",
        "a bundle whose stages are exchanged while they are opened",
        lambda p: p.command(bundle=p.bundle()),
        "bundle|encoder|decoder",
        during=_bundle_in_use,
        changes=("inputs",),
        **accepted(),
    ),
    _signalled("SIGHUP", signal.SIGHUP, codes=(129,), says="terminated"),
    _signalled("SIGINT twice", signal.SIGINT, signal.SIGINT, codes=(130,), says="interrupted"),
    _signalled("SIGINT ten times", *[signal.SIGINT] * 10, codes=(130,), says="interrupted"),
    _signalled("SIGTERM while it starts", signal.SIGTERM, at_once=True, codes=(143,), says=""),
    _signalled("SIGSTOP and SIGCONT", signal.SIGSTOP, signal.SIGCONT, codes=(0,)),
    _signalled("SIGWINCH a hundred times", *[signal.SIGWINCH] * 100, codes=(0,)),
]
CASES = [*_PROMPTS, *_OPTIONS, *_ENVIRONMENT, *_OUTPUT, *_RACES]
