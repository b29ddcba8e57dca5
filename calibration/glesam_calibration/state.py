"""What a calibration has so far, on disk, so that it can be interrupted and go on."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from glesam_calibration.statistics import Statistics
from glesam_runtime.errors import InputError
from glesam_runtime.manifest import StageName
from glesam_runtime.staging import staged_file

_PLAN = "calibration.json"


class Plan(msgspec.Struct, frozen=True):
    """Everything that statistics depend on; another plan's cannot be gone on from."""

    bundle: str
    """sha256 of the float bundle's manifest."""
    samples: tuple[tuple[str, str, str], ...]
    """Name, sha256 and level of each."""
    seed: int
    budget: int
    """Bytes of watched tensors in one run: it decides the groups."""
    onnxruntime: str
    format: str = "glesam-calibration"
    version: int = 1


@dataclass(frozen=True)
class Cursor:
    """How far a stage has come: groups done, and samples of the next one."""

    group: int = 0
    sample: int = 0


class State:
    """A folder beside the bundle that is to be."""

    def __init__(self, folder: Path, plan: Plan, resume: bool) -> None:
        """Open the folder, or make it.

        Args:
            folder: where statistics are kept until the bundle is written.
            plan: of this calibration.
            resume: go on from what is there; otherwise that is thrown away.

        Raises:
            InputError: it cannot be written, holds something else, or the state of another plan.
        """
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file, but statistics are to be kept there; remove it")
        found = _read_plan(folder)
        if folder.exists() and found is None and any(folder.iterdir()):
            raise InputError(f"{folder}: holds no calibration of ours; remove it or rename it")
        if resume and found is None:
            raise InputError(f"{folder}: no calibration to resume; leave out --resume")
        if resume and found != plan:
            raise InputError(
                f"{folder}: statistics of {_difference(found, plan)}; "
                "give the same arguments as before, or leave out --resume to start over"
            )
        if not resume and found is not None:
            self.remove()
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            with staged_file(folder / _PLAN) as partial:
                partial.write_bytes(msgspec.json.encode(plan))

    def remove(self) -> None:
        """Throw everything away: the bundle is written."""
        shutil.rmtree(self.folder)

    def load(self, stage: StageName) -> tuple[Cursor, dict[str, Statistics]]:
        """How far a stage came, and its tensors' statistics by name.

        Raises:
            InputError: the file is damaged.
        """
        path = self._statistics(stage)
        if not path.exists():
            return Cursor(), {}
        try:
            with safe_open(path, "numpy") as file:
                metadata = file.metadata()
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: damaged ({error}); leave out --resume to start over"
            ) from error
        by_name: dict[str, dict[str, NDArray[np.generic]]] = {}
        for key, array in tensors.items():
            name, _, part = key.rpartition("|")
            by_name.setdefault(name, {})[part] = array
        cursor = Cursor(int(metadata["group"]), int(metadata["sample"]))
        return cursor, {name: Statistics.from_tensors(parts) for name, parts in by_name.items()}

    def save(self, stage: StageName, cursor: Cursor, found: Mapping[str, Statistics]) -> None:
        """Keep what a stage has so far, whole or not at all."""
        tensors = {
            f"{name}|{part}": array
            for name, statistics in found.items()
            for part, array in statistics.as_tensors().items()
        }
        metadata = {"group": str(cursor.group), "sample": str(cursor.sample)}
        with staged_file(self._statistics(stage)) as partial:
            save_file(tensors, partial, metadata)

    def keep(
        self, stage: StageName, sample: int, outputs: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Keep a stage's outputs of a sample, for the next stage."""
        with staged_file(self._outputs(stage, sample)) as partial:
            save_file({n: np.ascontiguousarray(a) for n, a in outputs.items()}, partial)

    def kept(self, stage: StageName, sample: int) -> dict[str, NDArray[np.float32]]:
        """What `keep` kept."""
        return dict(load_file(self._outputs(stage, sample)))

    def _statistics(self, stage: StageName) -> Path:
        return self.folder / f"{stage}.safetensors"

    def _outputs(self, stage: StageName, sample: int) -> Path:
        return self.folder / f"{stage}-{sample:06d}.safetensors"


def _read_plan(folder: Path) -> Plan | None:
    try:
        return msgspec.json.decode((folder / _PLAN).read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _difference(found: Plan | None, plan: Plan) -> str:
    """Which of the plan's fields differ, in words."""
    differing = [
        name for name in plan.__struct_fields__ if getattr(found, name) != getattr(plan, name)
    ]
    return "another " + ", ".join(differing)
