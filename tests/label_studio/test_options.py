"""The backend of the Label Studio example refuses wrong options before it listens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[2] / "examples" / "label_studio" / "backend.py"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--port", "99999", "must be a number from 1 to 65535"),
        ("--server", "ftp://x", "an address such as http://127.0.0.1:8000 is needed"),
        ("--label-studio", "localhost:8080", "an address such as http://127.0.0.1:8080 is needed"),
    ],
)
def test_wrong_options(option: str, value: str, words: str) -> None:
    done = subprocess.run(
        [sys.executable, BACKEND, option, value],
        env={**os.environ, "LABEL_STUDIO_API_KEY": "token"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert f"error: {option} {value}: {words}" in done.stderr
    assert "Traceback" not in done.stderr
