"""Parts, unions and pictures of run lengths, compared with whole masks and with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from glesam_runtime.rle import (
    count_runs,
    join_spans,
    mask_spans,
    run_box,
    runs_in_window,
    unite_spans,
)
from glesam_runtime.tiling import png_rows
from glesam_runtime.tiling.png_rows import instance_bands, mask_bands, write_png

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(MASKS, st.data())
def test_a_part_of_runs_is_the_part_of_the_mask(mask: np.ndarray, data: st.DataObject) -> None:
    height, width = mask.shape
    x0, x1 = sorted(data.draw(st.tuples(*[st.integers(0, width)] * 2)))
    y0, y1 = sorted(data.draw(st.tuples(*[st.integers(0, height)] * 2)))
    step = data.draw(st.integers(1, 4))
    part = runs_in_window(count_runs(mask), height, (x0, y0, x1, y1), step)
    assert np.array_equal(part, mask[y0:y1, x0:x1][step // 2 :: step, step // 2 :: step])


@given(st.lists(arrays(bool, (7, 9)), min_size=1, max_size=4))
def test_a_union_of_spans_is_the_union_of_the_masks(every: list[np.ndarray]) -> None:
    runs = join_spans(unite_spans([mask_spans(mask, 7) for mask in every]), 63)
    assert np.array_equal(runs, count_runs(np.any(every, axis=0)))


@pytest.fixture
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png_rows, "_BAND_PIXELS", 200)


def test_pillow_reads_the_mask_that_was_written(tmp_path: Path, small_bands: None) -> None:
    mask = np.random.default_rng(0).random((41, 30)) > 0.5
    write_png(tmp_path / "a.png", mask.shape, mask_bands(count_runs(mask), mask.shape))
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
        assert np.array_equal(np.asarray(image), mask * np.uint8(255))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pillow_reads_the_instance_map(tmp_path: Path, small_bands: None, dtype: type) -> None:
    rng = np.random.default_rng(1)
    truth = np.zeros((41, 30), dtype)
    painted = []
    for value in (3, 250, 7):
        mask = np.zeros(truth.shape, bool)
        top, left = rng.integers(0, 20, 2)
        mask[top : top + 15, left : left + 9] = rng.random((15, 9)) > 0.2
        truth[mask] = value
        runs = count_runs(mask)
        painted.append((value, runs, run_box(runs, 41)))
    colours = rng.integers(0, 256, (251, 3), np.uint8) if dtype is np.uint8 else None
    bands = instance_bands(painted, truth.shape, dtype)
    write_png(tmp_path / "a.png", truth.shape, bands, colours)
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), truth)
        if colours is not None:
            assert np.array_equal(np.asarray(image.convert("RGB")), colours[truth])
