"""Kept stages equal the exporter's, and are kept only for unchanged random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from glesam_export import stages
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_runtime.bundle import file_ref
from glesam_runtime.interface import expected_interface
from glesam_runtime.manifest import Stage

from ..traced import Traced
from .conftest import random_nano, random_nano2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Replace the exporter by one that writes the number of its call; return the calls."""
    seen: list[tuple[object, ...]] = []

    def export_stage(
        checkpoint, stage, precision, batch, folder, further=(), *, image_index, attention_nodes
    ) -> Stage:
        assert not image_index
        seen.append((checkpoint, stage, precision, batch, further, attention_nodes))
        path = folder / f"{stage}.onnx"
        path.write_text(str(len(seen)))
        preset = checkpoint.preset
        inputs, outputs = expected_interface(stage, preset.image_size, batch, preset.family)
        return Stage(file_ref(path), precision, inputs, outputs)

    monkeypatch.setattr(stages, "export_stage", export_stage)
    return seen


def test_a_stage_is_traced_once_for_all_workers(calls: list, tmp_path: Path) -> None:
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        worker = Traced(tmp_path / "kept")
        stage = worker.export_stage(random_nano(), "encoder", "fp16", 1, folder)
        assert stage.graph == file_ref(folder / "encoder.onnx")
        made.append(stage)
    assert made[0] == made[1]
    assert len(calls) == 1


def test_whatever_else_decides_the_file_is_traced_anew(calls: list, tmp_path: Path) -> None:
    traced = Traced(tmp_path / "kept")
    for asked in (
        (random_nano(), "encoder", "fp32", 1),
        (random_nano(), "decoder", "fp32", 1),
        (random_nano(), "encoder", "fp16", 1),
        (random_nano(), "encoder", "fp32", 2),
        (random_nano(), "encoder", "fp32", "dynamic"),
        (random_nano(seed=1), "encoder", "fp32", 1),
        (random_nano2(), "encoder", "fp32", 1),
        (random_nano(), "enhancer", "fp32", 1),
        (random_nano(gamma=3.0), "enhancer", "fp32", 1),
        (random_nano(timestep=1), "enhancer", "fp32", 1),
    ):
        before = len(calls)
        traced.export_stage(*asked, tmp_path)
        assert calls[before:] == [(*asked, (), False)]
    before = len(calls)
    for _ in range(2):
        traced.export_stage(random_nano(), "encoder", "fp32", 1, tmp_path, attention_nodes=True)
    assert [nodes for *_, nodes in calls[before:]] == [True]
    before = len(calls)
    traced.export_stage(random_nano2(), "enhancer", "fp32", 1, tmp_path)
    traced.export_stage(random_nano(gamma=3.0), "encoder", "fp32", 1, tmp_path)
    traced.export_stage(random_nano(), "decoder", "fp32", 2, tmp_path)
    assert len(calls) == before, "SAM's latent is the same; gamma is the enhancer's, N no decoder's"


def test_what_is_not_as_it_was_drawn_is_never_kept(calls: list, tmp_path: Path) -> None:
    class Another(RandomCheckpoint):
        pass

    plain, altered = random_nano(), random_nano()
    altered.alpha_bar = 0.5
    other = Another(0, plain.preset, plain.unet, plain.gamma, plain.timestep)
    traced = Traced(tmp_path / "kept")
    for checkpoint, further in ((plain, ["neck"]), (altered, ()), (other, ())):
        for _ in range(2):
            before = len(calls)
            traced.export_stage(checkpoint, "encoder", "fp16", 1, tmp_path, further)
            assert calls[before:] == [(checkpoint, "encoder", "fp16", 1, further, False)]
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_trace_that_failed_is_tried_again(
    calls: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    traced = Traced(tmp_path / "kept")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "export_stage", fail)
        with pytest.raises(KeyboardInterrupt):
            traced.export_stage(random_nano(), "encoder", "fp16", 1, tmp_path)
    traced.export_stage(random_nano(), "encoder", "fp16", 1, tmp_path)
    assert len(calls) == 1
