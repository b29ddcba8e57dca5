"""Masks equal those of torch's interpolate and segment_anything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score

from glesam_runtime import masks
from glesam_runtime.image import Geometry, geometry_of
from glesam_runtime.manifest import Postprocessing, Stability

RULES = Postprocessing("bilinear", 0.0, 1.0, "first")
SAM2_RULES = Postprocessing(
    "bilinear_direct", 0.0, 1.0, "first_if_stable", Stability(0.05, 0.98), 32.0
)


def smooth_logits(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(1, int(np.prod(shape[:-2])), 6, 6)).astype(np.float32) * 4
    wide = torch.nn.functional.interpolate(torch.from_numpy(coarse), shape[-2:], mode="bicubic")
    return wide.numpy().reshape(shape)


def torch_upscale(low_res: np.ndarray, geometry: Geometry) -> np.ndarray:
    size, (height, width) = geometry.image_size, geometry.resized
    wide = torch.nn.functional.interpolate(
        torch.from_numpy(low_res)[None], (size, size), mode="bilinear", align_corners=False
    )[..., :height, :width]
    return torch.nn.functional.interpolate(
        wide, geometry.original, mode="bilinear", align_corners=False
    )[0].numpy()


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    size=st.sampled_from([64, 256]),
    seed=st.integers(0, 99),
)
def test_upscale_is_torchs(height: int, width: int, size: int, seed: int) -> None:
    low_res = smooth_logits(seed, 2, size // 4, size // 4)
    geometry = geometry_of(height, width, size)
    expected = torch_upscale(low_res, geometry)
    scale = np.abs(expected).max()
    assert np.abs(masks.upscale(low_res, geometry, RULES) - expected).max() <= 1e-5 * scale


@settings(deadline=None, max_examples=20)
@given(height=st.integers(1, 700), width=st.integers(1, 700), seed=st.integers(0, 99))
def test_upscale_at_once_is_torchs(height: int, width: int, seed: int) -> None:
    low_res = smooth_logits(seed, 2, 16, 16)
    geometry = geometry_of(height, width, 64, "square")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(low_res)[None], (height, width), mode="bilinear", align_corners=False
    )[0].numpy()
    found = masks.upscale(low_res, geometry, SAM2_RULES)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    low_res = smooth_logits(3, 3, 16, 16)
    geometry = geometry_of(123, 77, 64)
    whole, made = masks.upscale(low_res, geometry, RULES), masks.binarize(low_res, geometry, RULES)
    monkeypatch.setattr(masks, "_STRIP_PIXELS", 77 * 10)
    np.testing.assert_allclose(masks.upscale(low_res, geometry, RULES), whole, atol=1e-5)
    again = masks.binarize(low_res, geometry, RULES)
    assert (again.masks != made.masks).mean() < 1e-3
    np.testing.assert_allclose(again.stability, made.stability, atol=1e-3)


def test_binarize_and_stability_are_segment_anythings() -> None:
    low_res = smooth_logits(5, 2, 3, 64, 64)
    geometry = geometry_of(300, 420, 256)
    logits = torch.from_numpy(masks.upscale(low_res, geometry, RULES))
    made = masks.binarize(low_res, geometry, RULES)
    assert made.masks.shape == (2, 3, 300, 420)
    np.testing.assert_array_equal(made.masks, logits.numpy() > 0)
    expected = calculate_stability_score(logits, 0.0, 1.0).numpy()
    assert 0 < expected.min() < expected.max() < 1
    np.testing.assert_allclose(made.stability, expected, rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    corner=st.tuples(st.integers(0, 13), st.integers(0, 13)),
    offset=st.sampled_from([0.0, 1.0, 4.0]),
)
def test_small_masks_lose_nothing(
    height: int, width: int, corner: tuple[int, int], offset: float
) -> None:
    """Check that skipping empty rows and columns changes neither mask nor stability."""
    top, left = corner
    low_res = np.full((1, 16, 16), -3, np.float32)
    low_res[0, top : top + 3, left : left + 2] = smooth_logits(top, 1, 3, 2)[0] + 2
    geometry = geometry_of(height, width, 64)
    logits = masks.upscale(low_res, geometry, RULES)
    made = masks.binarize(low_res, geometry, RULES, stability_offset=offset)
    sure = np.abs(logits) > 1e-5  # a logit at the threshold may be rounded to either side
    np.testing.assert_array_equal(made.masks[sure], (logits > 0)[sure])
    low, high = (
        (logits > offset + slack).sum() / max((logits > -offset - slack).sum(), 1)
        for slack in (1e-5, -1e-5)
    )
    assert low <= made.stability[0] <= high


def test_threshold_and_offset_are_the_manifests() -> None:
    low_res = smooth_logits(6, 1, 16, 16)
    geometry = geometry_of(64, 64, 64)
    rules = Postprocessing("bilinear", 1.5, 0.5, "first")
    logits = masks.upscale(low_res, geometry, rules)
    made = masks.binarize(low_res, geometry, rules)
    np.testing.assert_array_equal(made.masks, logits > 1.5)
    assert made.stability[0] == pytest.approx((logits > 2).sum() / (logits > 1).sum())


def test_an_empty_mask_has_no_stability_and_no_box() -> None:
    geometry = geometry_of(40, 50, 64)
    made = masks.binarize(np.full((1, 16, 16), -9, np.float32), geometry, RULES)
    assert made.stability.tolist() == [0]
    assert masks.mask_to_xywh(made.masks[0]) == (0, 0, 0, 0)


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_box_is_segment_anythings_as_width_and_height(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.1
    x0, y0, x1, y1 = batched_mask_to_box(torch.from_numpy(mask)).tolist()
    expected = (x0, y0, x1 - x0 + 1, y1 - y0 + 1) if mask.any() else (0, 0, 0, 0)
    assert masks.mask_to_xywh(mask) == expected


def test_choose() -> None:
    low_res = np.arange(2 * 4, dtype=np.float32).reshape(2, 4, 1, 1)
    iou = low_res[..., 0, 0]
    assert masks.choose(low_res, iou, multimask=False, rules=RULES)[1].tolist() == [[0], [4]]
    assert masks.choose(low_res, iou, multimask=True, rules=RULES)[0][..., 0, 0].tolist() == [
        [1, 2, 3],
        [5, 6, 7],
    ]


def test_choose_falls_back_as_sam2_does() -> None:
    """Test stable and unstable masks, and one without pixels above either bound."""
    from sam2.modeling.sam.mask_decoder import MaskDecoder

    low_res = smooth_logits(1, 12, 4, 32, 32) * np.geomspace(0.3, 300, 12)[:, None, None, None]
    low_res[3, 0] = -1
    low_res = low_res.astype(np.float32)
    iou = np.random.default_rng(0).random((12, 4), np.float32)
    theirs = MaskDecoder(
        transformer_dim=16,
        transformer=torch.nn.Identity(),
        dynamic_multimask_via_stability=True,
        dynamic_multimask_stability_delta=0.05,
        dynamic_multimask_stability_thresh=0.98,
    )
    expected = theirs._dynamic_multimask_via_stability(
        torch.from_numpy(low_res), torch.from_numpy(iou)
    )
    found = masks.choose(low_res, iou, multimask=False, rules=SAM2_RULES)
    for mine, reference in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, reference.numpy())
    kept = found[1][:, 0] == iou[:, 0]
    assert kept[3]
    assert 1 < kept.sum() < len(kept)
    np.testing.assert_array_equal(
        masks.choose(low_res, iou, multimask=True, rules=SAM2_RULES)[0], low_res[:, 1:]
    )


def test_logits_for_a_later_call_are_clipped_where_the_rules_say_so() -> None:
    low_res = np.array([[-99, 3, 40]], np.float32)
    assert masks.for_mask_input(low_res, RULES) is low_res
    assert masks.for_mask_input(low_res, SAM2_RULES).tolist() == [[-32, 3, 32]]


def test_a_huge_image_needs_no_float_copy() -> None:
    import tracemalloc

    geometry = geometry_of(6000, 20000, 64)
    low_res = smooth_logits(7, 1, 16, 16)
    tracemalloc.start()
    made = masks.binarize(low_res, geometry, RULES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.masks.shape == (1, 6000, 20000)
    assert peak < 6000 * 20000 * 1.6  # the mask, a byte a pixel, and strips
