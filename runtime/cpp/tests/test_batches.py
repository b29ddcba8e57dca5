"""Images that are encoded together have the features that they have alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cases import random_case
from safetensors.numpy import save_file
from test_gate import with_gate

PICTURES = 7


@pytest.mark.parametrize(
    ("bundle", "gated"),
    [("nano", False), ("nano_batch3", True), ("nano_dynamic", True), ("nano_dynamic", False)],
)
def test_batches(
    bundle: str,
    gated: bool,
    programs: Path,
    backend: list[str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    folder: Path = request.getfixturevalue(bundle)
    if gated:
        folder = with_gate(folder, tmp_path / "gated")
    pictures = {str(index): random_case(index, 64).image for index in range(PICTURES)}
    save_file(pictures, tmp_path / "pictures")
    done = subprocess.run(
        [programs / "batches", folder, tmp_path / "pictures", *backend],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    enhanced = int(done.stdout.split()[0])
    assert 0 < enhanced < PICTURES if gated else enhanced == PICTURES
    print(done.stdout)
