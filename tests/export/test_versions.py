"""Two distributions with one version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).parents[2]


def project(file: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / file).read_text())["project"]
    return found


def test_the_versions_are_one() -> None:
    deploy, runtime = project("pyproject.toml"), project("runtime/pyproject.toml")
    assert (deploy["name"], runtime["name"]) == ("glesam-deploy", "glesam-runtime")
    assert deploy["version"] == runtime["version"]
    extras = [need for needs in deploy["optional-dependencies"].values() for need in needs]
    needs = [need for need in (*deploy["dependencies"], *extras) if "glesam-runtime" in need]
    assert len(needs) == 5
    assert {need.split("==")[1] for need in needs} == {runtime["version"]}
