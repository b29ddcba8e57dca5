"""Trace the stages of small random models once per test run."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec
import pytest
from filelock import FileLock

from glesam_export import build, precision, stages
from glesam_export.build import Options
from glesam_export.checkpoints import Checkpoint
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.families import family_of
from glesam_export.stages import Batch
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import Manifest, PrecisionName, Stage, StageName


class Traced:
    """Keeps what `stages.export_stage` made of random weights, for every test and worker of a run.

    Tracing a stage takes longer than most tests, and a dozen test files need the same stages. Do
    not use it while the exporter is patched, because other tests would get the patched result.

    Args:
        root: a folder that the workers of this run share with one another but with no other run.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(exist_ok=True)

    def export_stage(
        self,
        checkpoint: Checkpoint,
        stage: StageName,
        precision: PrecisionName,
        batch: Batch,
        folder: Path,
        further: Sequence[str] = (),
        *,
        image_index: bool = False,
        attention_nodes: bool = False,
    ) -> Stage:
        """Do what `stages.export_stage` does; for unchanged random weights, copy the kept files."""
        kind = {"image_index": image_index, "attention_nodes": attention_nodes}
        if further or not _as_drawn(checkpoint):
            return stages.export_stage(checkpoint, stage, precision, batch, folder, further, **kind)
        key = _key(checkpoint, stage, precision, batch)
        kept = (
            self._root
            / f"{stage}-{precision}-{key}{'-indexed' * image_index}{'-nodes' * attention_nodes}"
        )
        record = kept / "stage.json"
        with FileLock(f"{kept}.lock"):
            if not record.exists():  # written last, so a folder without it is an unfinished trace
                kept.mkdir(exist_ok=True)
                made = stages.export_stage(checkpoint, stage, precision, batch, kept, **kind)
                record.write_bytes(msgspec.json.encode(made))
        found = msgspec.json.decode(record.read_bytes(), type=Stage)
        for file in (found.graph, found.data):
            if file is not None:
                shutil.copyfile(kept / file.file, folder / file.file)
        return found

    def build_bundle(
        self, checkpoint: Checkpoint, folder: Path, options: Options | None = None
    ) -> Manifest:
        """Do what `build.build_bundle` does, including verification, with the kept stages."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "export_stage", self.export_stage)
            given = options or Options()
            return build.build_bundle(checkpoint, folder, given, lambda _: nullcontext())

    def bundle(self, checkpoint: RandomCheckpoint) -> Path:
        """Return a checkpoint's fp32 bundle, built once per run; tests must not change it."""
        assert _as_drawn(checkpoint)
        place = self._root / f"{checkpoint.preset.name}-{checkpoint.seed}"
        with FileLock(f"{place}.lock"):
            if not (place / "bundle").exists():  # it appears whole or not at all
                self.build_bundle(checkpoint, place / "bundle")
        return place / "bundle"


def _as_drawn(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint is random and unchanged since it was made."""
    if type(checkpoint) is not RandomCheckpoint:
        return False
    preset, unet = checkpoint.preset, checkpoint.unet
    pair, origin = (checkpoint.gamma, checkpoint.timestep), checkpoint.origin
    return vars(checkpoint) == vars(RandomCheckpoint(checkpoint.seed, preset, unet, *pair, origin))


def _key(checkpoint: RandomCheckpoint, stage: StageName, half: PrecisionName, batch: Batch) -> str:
    """Hash everything that decides a stage's file. An enhancer depends only on SAM's latent."""
    sam = checkpoint.preset
    if stage == "enhancer":
        unet = checkpoint.unet.name, sorted(checkpoint.unet.config.items())
        weights = *unet, checkpoint.gamma, checkpoint.timestep
    else:
        weights = (sam,)
    islands = precision.islands(stage, half, stages.presets_of(checkpoint))
    interface = expected_interface(stage, sam.image_size, batch, family_of(sam).contract)
    facts = repr((checkpoint.seed, weights, islands, interface))
    return hashlib.sha256(facts.encode()).hexdigest()[:16]
