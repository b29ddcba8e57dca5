"""The Debian package installs into a clean root and works there; removed, it leaves nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FLAGS = os.environ["GLESAM_CPP_FLAGS"].split()


def run(*command: str | Path, **environment: str) -> str:
    """Run a command and return its output."""
    done = subprocess.run(
        [str(c) for c in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if "dpkg" not in path.parts}


@pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="dpkg --root needs root")
def test_package_in_a_clean_root(nano: Path, tmp_path: Path) -> None:
    config = Path(os.environ["GLESAM_CPP_BUILD"]) / "CPackConfig.cmake"
    run("cpack", "-G", "DEB", "--config", config, "-B", tmp_path / "packed")
    (package,) = (tmp_path / "packed").glob("glesam_*.deb")
    root = tmp_path / "root"
    for folder in ("updates", "info"):
        (root / "var/lib/dpkg" / folder).mkdir(parents=True)
    (root / "var/lib/dpkg/status").touch()
    # The root has no C library, on which the package depends.
    run("dpkg", f"--root={root}", "--force-depends", "--force-not-root", "-i", package)
    assert {"usr/include/glesam.h", "usr/lib/libglesam.so", "usr/bin/glesam-cpp"} <= _files(root)
    flags = run(
        "pkg-config",
        "--cflags",
        "--libs",
        "glesam",
        PKG_CONFIG_PATH=str(root / "usr/lib/pkgconfig"),
        PKG_CONFIG_ALLOW_SYSTEM_CFLAGS="1",
    ).split()
    libraries = root / "usr/lib"
    program = tmp_path / "program"
    source = HERE / "abi_0_1/program.c"
    shutil.copy(source, tmp_path)  # away from the header of 0.1 beside it
    run("cc", tmp_path / source.name, "-o", program, *FLAGS, *flags)
    found = os.environ.get("LD_LIBRARY_PATH", "")
    said = run(program, nano, LD_LIBRARY_PATH=f"{libraries}:{found}")
    assert "passed" in said
    assert run(root / "usr/bin/glesam-cpp", "--version").startswith("glesam-cpp ")
    run("dpkg", f"--root={root}", "--force-not-root", "-r", "glesam")
    assert not {path for path in _files(root) if not (root / path).is_dir()}
