"""COCO RLE equals that of pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco

from glesam_runtime import InputError
from glesam_runtime.rle import Rle, decode_rle, encode_rle


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_random_masks(height: int, width: int, density: float, seed: int) -> None:
    check(np.random.default_rng(seed).random((height, width)) < density)


def test_large_runs_of_many_groups() -> None:
    mask = np.zeros((3000, 4000), np.bool_)
    mask[10:2990, 5:3000] = True
    mask[100:200, 50:60] = False
    mask[-1, -1] = True
    check(mask)


def check(mask: np.ndarray) -> None:
    rle = encode_rle(mask)
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert rle["size"] == expected["size"]
    assert rle["counts"] == expected["counts"].decode()
    np.testing.assert_array_equal(decode_rle(rle), mask)


@pytest.mark.parametrize("counts", ["", "1", "~", " ", "o", "99", "ooooooooooooooooooooo1"])
def test_bad_counts(counts: str) -> None:
    with pytest.raises(InputError, match="RLE"):
        decode_rle(Rle(size=[4, 4], counts=counts))


@given(st.text(max_size=20))
def test_no_text_gets_through_unnoticed(counts: str) -> None:
    try:
        mask = decode_rle(Rle(size=[3, 5], counts=counts))
    except InputError:
        return
    assert mask.shape == (3, 5)
