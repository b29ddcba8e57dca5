"""Unpack the pieces on the GPU machine and run there: `python3 start.py --output DIR`.

This file travels beside the pieces and imports nothing but Python's own library. All further
options go to `glesam_benchmark.gpu.run`. A second start finds what the first one unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
import time
import zipfile
from pathlib import Path

LIST = "pieces.json"
"""Names and hashes of the pieces, in order."""
ARCHIVE = "gpu.tar"
SITE = "site.zip"
"""Our code and packages of pure Python."""
PACKAGES = "packages"
"""The folder of the archive that holds SITE and the wheels."""


def join(folder: Path) -> Path:
    """Join the pieces into the archive, and check every one.

    Raises:
        SystemExit: a piece is missing or damaged; names every one.
    """
    listed: dict[str, str] = json.loads((folder / LIST).read_text())
    wrong = [
        name
        for name, expected in listed.items()
        if not (folder / name).is_file()
        or hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected
    ]
    if wrong:
        sys.exit(f"missing or damaged in {folder}: {', '.join(wrong)}; copy them again")
    archive = folder / ARCHIVE
    with archive.open("wb") as file:
        for name in listed:
            file.write((folder / name).read_bytes())
    return archive


def unpack(folder: Path) -> Path:
    """Unpack packages and wheels into one folder for PYTHONPATH; return it."""
    site, done = folder / "site", folder / "unpacked"
    if done.is_file():
        return site
    archive = join(folder)
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    archive.unlink()
    # SITE is the last, so that our files replace those of a wheel.
    for packed in sorted((folder / PACKAGES).iterdir(), key=lambda each: each.name == SITE):
        with zipfile.ZipFile(packed) as file:
            file.extractall(site)
    done.touch()
    return site


def main() -> None:
    """Unpack, and become the run."""
    begin = time.monotonic()
    folder = Path(__file__).resolve().parent
    site = unpack(folder)
    print(f"unpacked in {time.monotonic() - begin:.1f} s", flush=True)
    os.environ["PYTHONPATH"] = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    program = [sys.executable, "-m", "glesam_benchmark.gpu.run", "--work", str(folder / "work")]
    os.execv(sys.executable, [*program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
