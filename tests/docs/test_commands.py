"""The command blocks of the pages run as printed, in a scratch copy of the repository.

Run it with `pytest -m readme -rs tests/docs`, not in parallel: the blocks of a page build on each
other, and those of README come first. `-rs` lists the blocks that are not run, with the reason.

GLESAM_VENV names the full environment, by default .venv. GLESAM_RUNTIME_VENV names an environment
for the blocks that install the runtime alone; by default a new one is made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import ROOT, RUN, Block, blocks, pages

SECONDS = 1800
"""The longest that one block may take."""
LONG_AGO = 1_577_836_800
"""2020-01-01. With files as old as this, `make` takes the linked .venv for complete. It would
otherwise install the scratch copy into it."""


def _parameters() -> list[object]:
    """Return every block that could run; one that is not to run is skipped with its reason."""
    found = [block for page in pages() for block in blocks(page) if block.language in RUN]
    return [
        pytest.param(
            block,
            id=str(block),
            marks=pytest.mark.skip(reason=f"{block}: {block.not_run}") if block.not_run else (),
        )
        for block in found
    ]


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the repository, without what git ignores; its .venv is a link to the full one."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
            os.utime(folder / name, (LONG_AGO, LONG_AGO))
    full = Path(os.environ.get("GLESAM_VENV", ROOT / ".venv")).absolute()
    if (full / ".ready").is_file():
        (folder / ".venv").symlink_to(full)
    return folder


@pytest.fixture(scope="session")
def runtime_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment that has nothing but what the blocks install."""
    if given := os.environ.get("GLESAM_RUNTIME_VENV"):
        return Path(given).absolute()
    folder = tmp_path_factory.mktemp("runtime") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.mark.readme
@pytest.mark.parametrize("block", _parameters())
def test_block_runs(block: Block, checkout: Path, request: pytest.FixtureRequest) -> None:
    variables = dict(os.environ)
    if block.environment == "runtime":
        folder = request.getfixturevalue("runtime_environment")
        variables.pop("PYTHONPATH", None)
        variables["PIP_CONSTRAINT"] = str(checkout / "constraints.txt")
    else:
        folder = checkout / ".venv"
        if not folder.is_dir():
            pytest.fail("no complete .venv here: run 'make setup', or name one in GLESAM_VENV")
    variables["PATH"] = f"{folder / 'bin'}{os.pathsep}{variables['PATH']}"
    shell = ["bash", "-eo", "pipefail", "-c"]
    command = [*shell, block.code] if block.language == "bash" else ["python", "-c", block.code]
    done = subprocess.run(
        command,
        cwd=checkout,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{block}: exit code {done.returncode}\n{done.stdout}"
