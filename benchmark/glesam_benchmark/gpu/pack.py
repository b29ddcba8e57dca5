"""Collect what the GPU machine needs into pieces: `python -m glesam_benchmark.gpu.pack FOLDER`.

The machine has CUDA and PyTorch, but no package registry, and takes files of limited size. Packages
of pure Python are copied from this environment, together with our own code and nano's weights.
Compiled ones are downloaded once as wheels for the machine's Python. All of it is one archive, cut
into pieces.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, version
from pathlib import Path

from glesam_benchmark.gpu import start

PIECE_MEGABYTES = 59
MACHINE_PYTHON = "3.12"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
WHEELS = {"onnxruntime-gpu": "1.31.1", "msgspec": ""}
"""Compiled packages and their versions; "" is this environment's. onnxruntime-gpu 1.31.1 is for
CUDA 13 and cuDNN 9, which come with the machine's PyTorch."""
PURE = (
    *("diffusers", "peft", "segment-anything", "onnx-ir", "importlib-metadata", "zipp"),
    *("sam2", "hydra-core", "omegaconf", "antlr4-python3-runtime", "iopath", "portalocker"),
)
"""Packages of pure Python that the machine lacks or has in another version."""
OURS = (
    "glesam_runtime",
    "glesam_evaluation",
    "glesam_calibration",
    "glesam_export",
    "glesam_benchmark",
)
OWN = ("glesam-runtime", "glesam-deploy")
"""Our distributions, whose versions go into manifests."""
_LEFT_HERE = {"__pycache__", "nano"}
"""Folders of our packages that do not travel."""


def download(folder: Path) -> list[Path]:
    """Return the wheels; those that lie in the folder are not downloaded again."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, pinned in WHEELS.items():
        wanted = pinned or version(name)
        pattern = f"{name.replace('-', '_')}-{wanted}-*.whl"
        if not any(folder.glob(pattern)):
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
            command += ["--disable-pip-version-check", "--only-binary=:all:", "-d", str(folder)]
            command += ["--python-version", MACHINE_PYTHON, "--implementation", "cp"]
            for platform in PLATFORMS:
                command += ["--platform", platform]
            subprocess.run([*command, f"{name}=={wanted}"], check=True)
        found += sorted(folder.glob(pattern))
    return found


def files_of(name: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of an installed package of pure Python, and their names in `site`.

    Raises:
        SystemExit: the package has compiled files.
    """
    installed = distribution(name)
    for file in installed.files or ():
        source = Path(str(installed.locate_file(file)))
        if ".." in file.parts or "__pycache__" in file.parts or not source.is_file():
            continue
        if source.suffix == ".so":
            sys.exit(f"{name}: has compiled files ({file}); it belongs into WHEELS")
        yield source, str(file)


def our_files() -> Iterator[tuple[Path, str]]:
    """Yield the files of our own packages, and their names in `site`.

    The built-in bundle stays here, because nano is exported there in every precision.
    """
    for package in OURS:
        spec = importlib.util.find_spec(package)
        assert spec is not None, f"{package} is installed, because this module is"
        assert spec.origin is not None, f"{package} has an __init__.py"
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*")):
            name = Path(package) / path.relative_to(root)
            if path.is_file() and not _LEFT_HERE & set(name.parts[:-1]):
                yield path, str(name)


def write_archive(path: Path, wheels: list[Path]) -> dict[str, int]:
    """Write the archive; return the bytes of each part of it."""
    site = path.with_name(start.SITE)
    with zipfile.ZipFile(site, "w", zipfile.ZIP_DEFLATED) as packed:
        for source, name in our_files():
            packed.write(source, name)
        for package in PURE:
            for source, name in files_of(package):
                packed.write(source, name)
        for package in OWN:
            installed = distribution(package)
            title, number = installed.metadata["Name"], installed.version
            folder = f"{title.replace('-', '_')}-{number}.dist-info"
            # Without the record of an editable install, which names paths of this machine.
            text = f"Metadata-Version: 2.1\nName: {title}\nVersion: {number}\n"
            packed.writestr(f"{folder}/METADATA", text)
    with tarfile.open(path, "w") as archive:
        for file in (site, *wheels):
            archive.add(file, f"{start.PACKAGES}/{file.name}")
    sizes = {file.name: file.stat().st_size for file in (site, *wheels)}
    site.unlink()
    return sizes


def cut(archive: Path, folder: Path, size: int) -> list[Path]:
    """Cut the archive into pieces of at most `size` bytes, with the list that `start` checks."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pieces: list[Path] = []
    with archive.open("rb") as file:
        while data := file.read(size):
            pieces.append(folder / f"piece-{len(pieces):02d}")
            pieces[-1].write_bytes(data)
    hashes = {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in pieces}
    (folder / start.LIST).write_text(json.dumps(hashes, indent=1))
    shutil.copyfile(start.__file__, folder / "start.py")
    return pieces


def main() -> None:
    """Collect everything, print sizes and seconds, and say how to go on."""
    parser = argparse.ArgumentParser(description="Collect what a GPU machine needs.")
    parser.add_argument("folder", type=Path, help="Folder for wheels and pieces.")
    parser.add_argument("--piece-mb", type=int, default=PIECE_MEGABYTES, help="Largest piece.")
    given = parser.parse_args()
    begin = time.monotonic()
    wheels = download(given.folder / "wheels")
    downloaded = time.monotonic()
    archive = given.folder / start.ARCHIVE
    sizes = write_archive(archive, wheels)
    pieces = cut(archive, given.folder / "pieces", given.piece_mb * 10**6)
    archive.unlink()
    for part, size in sizes.items():
        print(f"{size / 1e6:8.1f} MB  {part}")
    for piece in pieces:
        print(f"{piece.stat().st_size / 1e6:8.1f} MB  {piece}")
    print(f"wheels: {downloaded - begin:.1f} s, pieces: {time.monotonic() - downloaded:.1f} s")
    print(
        f"Copy {given.folder / 'pieces'} to one folder of the GPU machine, and run there:\n"
        "  python3 start.py --output results\n"
        "Copy results/gpu.json to docs/gpu.json, and run: make gpu-page"
    )


if __name__ == "__main__":
    main()
