"""Define a case: hostile inputs, the command line that reads them, and what may come of it."""

from __future__ import annotations

import os
import random
import shutil
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SEED = 18
"""Random damage is drawn from this seed and the name of the case."""


@dataclass(frozen=True)
class Place:
    """The folder of one case. Its program may write to `out` and to nothing else."""

    root: Path
    seed: int
    sample: Path
    """A sound bundle with a small model, which is only read."""

    @property
    def inputs(self) -> Path:
        """Return the folder for hostile files."""
        return self.root / "inputs"

    @property
    def out(self) -> Path:
        """Return the output folder. It does not exist when the program starts."""
        return self.root / "out"

    @property
    def home(self) -> Path:
        """Return the home folder of the user."""
        return self.root / "home"

    @property
    def cwd(self) -> Path:
        """Return the current folder of the program."""
        return self.root / "cwd"

    @property
    def secret(self) -> Path:
        """Return a file outside the inputs, which no program has a reason to open."""
        return self.root / "secret"

    @property
    def witness(self) -> Path:
        """Return the file that hostile code creates if it is executed."""
        return self.root / "witness"

    @cached_property
    def random(self) -> random.Random:
        """Return the random numbers of this case."""
        return random.Random(self.seed)

    def write(self, name: str | bytes, content: bytes | str) -> Path:
        """Write a file among the inputs."""
        path = self.inputs / os.fsdecode(name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def photo(self, name: str | bytes = "photo.png", width: int = 60, height: int = 40) -> Path:
        """Write a sound image among the inputs; the suffix decides its format."""
        path = self.inputs / os.fsdecode(name)
        y, x = np.mgrid[0:height, 0:width]
        pixels = np.stack([x * 2 % 256, y * 2 % 256, (x + y) % 256], axis=-1)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    def bundle(self) -> Path:
        """Copy the sound bundle to the inputs, to be damaged."""
        folder = self.inputs / "bundle"
        return folder if folder.is_dir() else Path(shutil.copytree(self.sample, folder))

    def command(
        self, *more: Any, image: Any = None, bundle: Any = None, point: str = "9,9"
    ) -> list[Any]:
        """Return the arguments of a run of one image with one point; `more` follows them."""
        image = self.photo() if image is None else image
        return [image, "--points", point, *self.engine(bundle), *more]

    def engine(self, bundle: Any = None, backend: str = "onnxruntime") -> list[Any]:
        """Return the options that name the bundle, the engine and the output folder."""
        chosen = self.sample if bundle is None else bundle
        return ["--bundle", chosen, "--backend", backend, "-o", self.out]


Make = Callable[[Place], Sequence[Any]]


@dataclass(frozen=True)
class Case:
    """A hostile input and what is allowed to come of it.

    A program that fails prints one line on stderr and writes nothing. `judge.faults` says exactly
    what is checked.
    """

    kind: str
    name: str
    make: Make
    """Writes the inputs and returns the arguments of the program."""
    says: str = ""
    """A regular expression that stderr must match."""
    codes: tuple[int, ...] = (2,)
    """The exit codes that are right."""
    lines: int = 1
    """The number of lines on stderr if the program fails: one for each image."""
    notes: bool = False
    """Whether lines that start with "note:" may stand beside them."""
    writes: bool = False
    """Whether files may be written though the program fails, such as those of other images."""
    changes: tuple[str, ...] = ()
    """The folders of `Place`, by their names, that may change."""
    seconds: float = 5.0
    """The most CPU time."""
    mebibytes: int = 250
    """The most memory beyond what the program has when it starts."""
    program: str = "glesam-run"
    encoding: str = "utf-8"
    """The encoding of stdout and stderr."""
    touches: tuple[str, ...] = ()
    """The starts of paths outside of `Place` that the user asked the program to write to."""
    separate: bool = False
    """Whether to start a new interpreter. The other cases run in a fork of the test's process."""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Variables to set, or to remove (None)."""
    before: Callable[[Place], None] | None = None
    """Runs in the process of the program just before it starts."""
    during: Callable[[int, Place], None] | None = None
    """Runs in the test's process once the program runs; its argument is the process id."""
    after: Callable[[Place], str | None] | None = None
    """Looks at what was written, and returns what is wrong with it."""

    @property
    def id(self) -> str:
        """Return the name by which pytest selects the case."""
        return f"{self.kind}: {self.name}"

    @property
    def seed(self) -> int:
        """Return the seed of this case."""
        return zlib.crc32(f"{SEED} {self.id}".encode())


def accepted(**further: Any) -> dict[str, Any]:
    """Return the expectations for damage that may leave the input sound or not."""
    return {"codes": (0, 2), "notes": True, **further}
