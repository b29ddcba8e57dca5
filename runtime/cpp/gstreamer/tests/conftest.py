"""Provide the built plugin and programs, which check.sh names in the environment."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from glesam_runtime.bundle import builtin_bundle_path


@dataclass(frozen=True)
class Region:
    """A GstVideoRegionOfInterestMeta of glesamsegment."""

    frame: int
    object: int
    lost: bool
    score: float
    stability: float
    area: int
    box: tuple[int, int, int, int]
    """x, y, width, height."""
    rle: str | None


@dataclass(frozen=True)
class Programs:
    """The programs of a build folder."""

    folder: Path

    def run(
        self, name: str, *arguments: object, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program with the plugin."""
        plugin = self.folder / "gstreamer"
        own = {"GST_PLUGIN_PATH": str(plugin), "GST_REGISTRY": str(self.folder / "registry.bin")}
        own["GST_REGISTRY_FORK"] = "no"  # the scanner is a program without the sanitizer
        return subprocess.run(
            [name if name == "bash" else plugin / "tests" / name, *map(str, arguments)],
            env={**os.environ, **own, **environment},
            capture_output=True,
            text=True,
            timeout=900,
        )

    def pipeline(self, text: str, folder: Path) -> tuple[dict[str, float], list[Region]]:
        """Run a pipeline. Return its figures, and the regions of its element "segment"."""
        records = folder / "records"
        done = self.run("run_pipeline", records, text)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout), [_region(line) for line in records.read_text().splitlines()]

    def error(self, text: str, folder: Path) -> str:
        """Run a pipeline that fails, and return its error message."""
        done = self.run("run_pipeline", folder / "records", text)
        assert done.returncode == 1, done.stdout + done.stderr
        return done.stdout.strip()


def _region(line: str) -> Region:
    frame, number, lost, score, stability, area, x, y, w, h, rle = line.split("\t")
    return Region(
        int(frame),
        int(number),
        lost == "1",
        float(score),
        float(stability),
        int(area),
        (int(x), int(y), int(w), int(h)),
        None if rle == "-" else rle,
    )


@pytest.fixture(scope="session")
def programs() -> Programs:
    """Return the programs of the release build."""
    return Programs(Path(os.environ["GLESAM_GST_BUILD"]))


@pytest.fixture(scope="session")
def sanitized() -> Programs:
    """Return the programs of the build with the address sanitizer."""
    return Programs(Path(os.environ["GLESAM_GST_SANITIZED"]))


@pytest.fixture(scope="session")
def nano() -> Path:
    """Return the built-in bundle."""
    return builtin_bundle_path()
