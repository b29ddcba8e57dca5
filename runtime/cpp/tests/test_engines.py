"""A predictor keeps its promises on an engine that fails, and the limits are Python's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from glesam_runtime import limits

INCLUDE = Path(__file__).parents[1] / "include"

LIMITS = {
    "side": limits.SIDE,
    "megapixels": limits.MEGAPIXELS,
    "points": limits.POINTS,
    "prompts": limits.PROMPTS,
    "json_mib": limits.JSON_BYTES,
    "golden_mib": limits.GOLDEN_BYTES,
}


def test_failing_engines(programs: Path, nano: Path, backend: list[str]) -> None:
    done = subprocess.run([programs / "engines", nano, *backend], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_limits_are_those_of_python() -> None:
    cpp = (INCLUDE / "glesam.h").read_text()
    (block,) = re.findall(r"struct Limits \{(.*?)\};", cpp, flags=re.DOTALL)
    found = dict(re.findall(r"size_t (\w+) = ([\d']+);", block))
    python = {name: limit.default for name, limit in LIMITS.items()}
    assert {name: int(value.replace("'", "")) for name, value in found.items()} == python

    c = (INCLUDE / "glesam_c.h").read_text()
    (block,) = re.findall(r"struct glesam_limits \{(.*?)\}", c, flags=re.DOTALL)
    said = re.findall(r"size_t (\w+);.*?default (\d+)", block, flags=re.DOTALL)
    assert {name: int(value) for name, value in said} == python
