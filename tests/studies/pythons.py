"""Install both wheels under each Python that is here, and run the demo (`make pythons`).

The arguments are the folder with the wheels, a folder to work in, and Python executables. Each gets
a new virtual environment with `glesam-runtime[cpu]` and `glesam-deploy[calibration]` from their
wheels. The table says what was installed and what `glesam-run --demo` and two other commands did.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("glesam-run", "glesam-degrade", "glesam-calibrate", "glesam-export")
SHOWN = ("numpy", "onnxruntime", "pillow")


def main() -> None:
    wheels, work, *pythons = (Path(word) for word in sys.argv[1:])
    print("| Python | installed | wheels | `glesam-run --demo` | objects | `--selftest` |")
    print("|---|---|---|---|---|---|")
    failed = False
    for python in pythons:
        row, good = check(python, wheels, work)
        print("| " + " | ".join(row) + " |", flush=True)
        failed |= not good
    sys.exit(failed)


def check(python: Path, wheels: Path, work: Path) -> tuple[list[str], bool]:
    """Return the row of one Python, and whether everything passed."""
    version = output([python, "-c", "import platform; print(platform.python_version())"]).strip()
    env = work / f"env-{version}"
    shutil.rmtree(env, ignore_errors=True)
    output([python, "-m", "venv", env])
    pip = [env / "bin/pip", "install", "-q", "--disable-pip-version-check"]
    names = ("glesam_runtime-*.whl", "glesam_deploy-*.whl")
    runtime, deploy = (next(wheels.glob(name)) for name in names)
    try:
        output([*pip, "--find-links", wheels, f"{runtime}[cpu]", f"{deploy}[calibration]"])
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
        return [version, "no", lines[0] if lines else "pip failed", "", "", ""], False
    listed = json.loads(output([*pip[:1], "list", "--format", "json"]))
    found = {each["name"].lower(): each["version"] for each in listed}
    shown = ", ".join(f"{name} {found[name]}" for name in SHOWN)
    for program in PROGRAMS:
        output([env / "bin" / program, "--version"])
    demo = json.loads(output([env / "bin/glesam-run", "--demo", "--json", "-o", work / version]))
    masks = demo["images"][0]["masks"]
    files = len(list((work / version).glob("*.png")))
    selftest = output([env / "bin/glesam-run", "--selftest"])
    passed = "passed" in selftest
    shutil.rmtree(env)
    return [
        *(version, shown, "both", f"{files} files", str(len(masks))),
        "passed" if passed else "failed",
    ], passed and bool(masks)


def output(command: list[object]) -> str:
    """Run a command in the working folder of its own, and return what it prints."""
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True
    ).stdout


if __name__ == "__main__":
    main()
