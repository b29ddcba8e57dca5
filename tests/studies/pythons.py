"""Install both wheels under each Python that is here, and run the demo (`make pythons`).

The arguments are uv's program, the folder with the wheels, a folder to work in, and the Pythons as
uv names them (3.12, or a path). uv makes a new environment for each, with
`glesam-runtime[cpu]` and `glesam-deploy` from the wheels and everything else from the index that uv
is configured for. A Python that is not here is named in the table; uv downloads none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

LIST = (
    "import importlib.metadata as m, platform; "
    "print(platform.python_version(), *(m.version(name) for name in "
    "('glesam-runtime', 'glesam-deploy', 'onnxruntime', 'numpy', 'pillow')), sep=' | ')"
)
COLUMNS = "Python | glesam-runtime | glesam-deploy | onnxruntime | numpy | pillow"


def main() -> None:
    uv, wheels, work = (Path(word).absolute() for word in sys.argv[1:4])
    print(f"| asked for | {COLUMNS} | `glesam-run --demo` | self-test |")
    print("|---|---|---|---|---|---|---|---|---|")
    failed = False
    for python in sys.argv[4:]:
        cells = check(uv, wheels, work, python)
        print(f"| {python} | " + " | ".join(cells) + " |", flush=True)
        failed |= len(cells) > 1 and cells[-1] != "passed"
    sys.exit(failed)


def check(uv: Path, wheels: Path, work: Path, python: str) -> list[str]:
    """Return the cells of one Python."""
    settings = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "1"}
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    wanted = ["--python", python, "--isolated", "--no-project", "--find-links", str(wheels)]
    wanted += ["--with", "glesam-runtime[cpu]", "--with", "glesam-deploy"]

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(uv), "run", "-q", *wanted, *words],
            capture_output=True,
            text=True,
            cwd=work,
            env={**environment, **settings},
        )

    work.mkdir(parents=True, exist_ok=True)
    listed = run("python", "-c", LIST)
    if listed.returncode:
        lines = listed.stderr.strip().splitlines()
        return [lines[0] if lines else "uv failed"]
    demo = run("glesam-run", "--demo", "--json", "-o", str(work / f"demo-{Path(python).name}"))
    if demo.returncode:
        return [listed.stdout.strip(), demo.stderr.strip().splitlines()[-1], "not run"]
    (image,) = json.loads(demo.stdout)["images"]
    selftest = run("glesam-run", "--selftest")
    passed = "passed" if selftest.returncode == 0 else "failed"
    return [listed.stdout.strip(), f"{len(image['masks'])} masks", passed]


if __name__ == "__main__":
    main()
