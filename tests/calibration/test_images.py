"""Test which images are chosen, and the errors for images that cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glesam_calibration.calibration_set import LEVELS, choose_samples
from glesam_evaluation.datasets.stand_ins import find_sources
from glesam_runtime.errors import InputError


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def told(warnings: list[str]) -> str:
    return "; ".join(warnings)


@given(images=st.integers(1, 9), count=st.integers(1, 50))
def test_each_image_at_each_level_at_most_once(
    tmp_path_factory: pytest.TempPathFactory, images: int, count: int
) -> None:
    folder = write(tmp_path_factory.mktemp("images"), *(f"{i}.png" for i in range(images)))
    warnings: list[str] = []
    chosen = choose_samples([folder], count, 3, warnings.append)
    pairs = [(sample.source.name, sample.record.level) for sample in chosen.samples]
    assert len(set(pairs)) == len(pairs) == min(count, 4 * images)
    assert len({name for name, _ in pairs}) == min(images, count)
    if len(pairs) >= len(LEVELS):
        levels = [level for _, level in pairs]
        assert {levels.count(level) for level in LEVELS} - {0}
        assert set(levels) == set(LEVELS)
    assert ("samples instead of" in told(warnings)) == (count > 4 * images)
    assert not chosen.procedural


def test_the_seed_decides(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", *(f"{i}.png" for i in range(12)))

    def names(seed: int) -> list[str]:
        chosen = choose_samples([folder], 4, seed, lambda _: None)
        return [sample.source.name for sample in chosen.samples]

    assert names(1) == names(1) != names(2)


def test_one_unreadable_among_many_is_skipped_counted_and_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "a.png", "b.png", "c.png")
    (folder / "broken.png").write_bytes(b"no image")
    warnings: list[str] = []
    chosen = choose_samples([folder], 16, 0, warnings.append)
    assert len({sample.source.name for sample in chosen.samples}) == 3
    assert len(chosen.skipped) == 1
    assert "1 of 4 images skipped" in told(warnings)
    assert "broken.png: not an image" in told(warnings)


def test_places(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "a.png", "b.png")
    listed = tmp_path / "list.txt"
    listed.write_text("a/b.png\n\na/a.png\n")
    assert [source.name for source in find_sources([listed])] == ["b.png", "a.png"]
    assert len(find_sources([folder, folder / "a.png"])) == 2
    scenes = choose_samples([], 3, 0, lambda _: None)
    assert scenes.procedural
    assert len({sample.record.sha256 for sample in scenes.samples}) == 3


def test_what_cannot_be_used(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("x.png", "y.jpg"):
        (broken / name).write_bytes(b"no image")
    blank = tmp_path / "blank.txt"
    blank.write_text("\n")
    for places, message in (
        ([empty], "no images in this folder"),
        ([broken], "none of 2 images can be read"),
        ([tmp_path / "nowhere"], "no such file or folder"),
        ([blank], "lists no images"),
    ):
        with pytest.raises(InputError, match=message):
            choose_samples(places, 4, 0, lambda _: None)
    with pytest.raises(InputError, match="at least 1"):
        choose_samples([], 0, 0, lambda _: None)


def test_an_image_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", "a.png")
    sample = choose_samples([folder], 1, 0, lambda _: None).samples[0]
    assert sample.image(0).shape == (20, 30, 3)
    write(folder, "other.png", "a.png")
    with pytest.raises(InputError, match=r"a\.png: has changed"):
        sample.image(0)
