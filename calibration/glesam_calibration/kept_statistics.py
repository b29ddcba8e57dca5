"""Keep the statistics of a calibration on disk, so that an interrupted one can resume."""

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


class StatisticsPlan(msgspec.Struct, frozen=True):
    """Everything that statistics depend on. Statistics of another plan cannot be resumed."""

    bundle: str
    """SHA-256 of the manifest of the float bundle."""
    samples: tuple[tuple[str, str, str], ...]
    """Name, SHA-256 and level of each sample."""
    seed: int
    budget: int
    """Bytes of watched tensors per run, which determine the groups of tensors."""
    onnxruntime: str
    attention: tuple[StageName, ...] = ()
    """Stages of which queries, keys and values are watched too."""
    format: str = "glesam-calibration"
    version: int = 1

    def covers(self, other: StatisticsPlan) -> bool:
        """Return whether statistics of this plan have all that the other asks for."""
        watched = set(self.attention) >= set(other.attention)
        return watched and msgspec.structs.replace(self, attention=other.attention) == other


@dataclass(frozen=True)
class Cursor:
    """Progress of a stage: number of finished groups, and of finished samples of the next group."""

    group: int = 0
    sample: int = 0


class KeptStatistics:
    """A folder of statistics, beside the bundle that will be written."""

    def __init__(self, folder: Path, plan: StatisticsPlan, resume: bool) -> None:
        """Open the folder, or create it.

        Args:
            folder: folder that keeps the statistics until the bundle is written.
            plan: plan of this calibration.
            resume: continue from the statistics in the folder; False deletes them. They may be of
                a plan that covers this one, which `plan` then is.

        Raises:
            InputError: the folder cannot be written, contains other files, or belongs to another
                plan.
        """
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file, but statistics must be kept there; remove it")
        found = _read_plan(folder)
        if folder.exists() and found is None and any(folder.iterdir()):
            raise InputError(
                f"{folder}: contains files that are no calibration; remove it or rename it"
            )
        if resume and found is None:
            raise InputError(f"{folder}: no calibration to resume; leave out --resume")
        if resume and found is not None and not found.covers(plan):
            raise InputError(
                f"{folder}: has statistics of {_difference(found, plan)}; "
                "give the same arguments as before, or leave out --resume to start over"
            )
        self.plan = found if resume and found is not None else plan
        if not resume and found is not None:
            self.remove()
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            with staged_file(folder / _PLAN) as partial:
                partial.write_bytes(msgspec.json.encode(plan))

    def remove(self) -> None:
        """Delete the folder, after the bundle is written."""
        shutil.rmtree(self.folder)

    def load(self, stage: StageName) -> tuple[Cursor, dict[str, Statistics]]:
        """Return the progress of a stage, and the statistics of its tensors by name.

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
                f"{path}: is damaged ({error}); leave out --resume to start over"
            ) from error
        by_name: dict[str, dict[str, NDArray[np.generic]]] = {}
        for key, array in tensors.items():
            name, _, part = key.rpartition("|")
            by_name.setdefault(name, {})[part] = array
        cursor = Cursor(int(metadata["group"]), int(metadata["sample"]))
        return cursor, {name: Statistics.from_tensors(parts) for name, parts in by_name.items()}

    def save(self, stage: StageName, cursor: Cursor, found: Mapping[str, Statistics]) -> None:
        """Write the statistics of a stage, completely or not at all."""
        tensors = {
            f"{name}|{part}": array
            for name, statistics in found.items()
            for part, array in statistics.as_tensors().items()
        }
        metadata = {"group": str(cursor.group), "sample": str(cursor.sample)}
        with staged_file(self._statistics(stage)) as partial:
            save_file(tensors, partial, metadata)

    def save_outputs(
        self, stage: StageName, sample: int, outputs: Mapping[str, NDArray[np.float32]]
    ) -> None:
        """Write the outputs of a stage for a sample, for the next stage."""
        with staged_file(self._outputs(stage, sample)) as partial:
            save_file({n: np.ascontiguousarray(a) for n, a in outputs.items()}, partial)

    def load_outputs(self, stage: StageName, sample: int) -> dict[str, NDArray[np.float32]]:
        """Return the outputs of a stage for a sample."""
        return dict(load_file(self._outputs(stage, sample)))

    def _statistics(self, stage: StageName) -> Path:
        return self.folder / f"{stage}.safetensors"

    def _outputs(self, stage: StageName, sample: int) -> Path:
        return self.folder / f"{stage}-{sample:06d}.safetensors"


def _read_plan(folder: Path) -> StatisticsPlan | None:
    try:
        return msgspec.json.decode((folder / _PLAN).read_bytes(), type=StatisticsPlan)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _difference(found: StatisticsPlan | None, plan: StatisticsPlan) -> str:
    """Return the names of the fields in which two plans differ, in words."""
    if found is not None and msgspec.structs.replace(found, attention=plan.attention) == plan:
        return "a calibration without --attention"
    differing = [
        name for name in plan.__struct_fields__ if getattr(found, name) != getattr(plan, name)
    ]
    return "another " + ", ".join(differing)
