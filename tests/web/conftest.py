"""Give cases to the page's library in Node, and return what it computes."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

MODULES = Path(str(files("glesam_serving") / "page" / "glesam"))
RUNNER = Path(__file__).parent / "run_cases.mjs"


@dataclass
class Cases:
    """Cases that one Node process runs."""

    folder: Path
    cases: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def add(self, kind: str, tensor: NDArray[np.generic] | None = None, **given: Any) -> None:
        """Add a case; `kind` is a name in run_cases.mjs."""
        if tensor is not None:
            self.tensors[str(len(self.cases))] = np.ascontiguousarray(tensor)
        self.cases.append({"kind": kind, **given})

    def run(self) -> list[Any]:
        """Return the result of each case: a float32 array, what JSON holds, or an error."""
        (self.folder / "cases.json").write_text(json.dumps(self.cases))
        save_file(
            self.tensors or {"none": np.zeros(1, np.uint8)}, self.folder / "tensors.safetensors"
        )
        command = ["node", "--no-warnings", str(RUNNER), str(MODULES), str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        results = json.loads((self.folder / "results.json").read_text())
        return [
            np.fromfile(self.folder / f"{index}.bin", np.float32) if result is None else result
            for index, result in enumerate(results)
        ]


@pytest.fixture
def cases(tmp_path: Path) -> Cases:
    """Return an empty list of cases."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    return Cases(tmp_path)
