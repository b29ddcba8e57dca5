"""The page's library chooses, upscales and encodes masks as torch, sam2 and pycocotools do."""

from __future__ import annotations

import msgspec
import numpy as np
import torch
from pycocotools import mask as coco
from segment_anything.utils.amg import calculate_stability_score
from torch.nn import functional

from glesam_runtime.image import Geometry, geometry_of
from glesam_runtime.manifest import Postprocessing, Stability

from .conftest import Cases

RULES = Postprocessing("bilinear", 0.0, 1.0, "first")
SAM2_RULES = Postprocessing(
    "bilinear_direct", 0.0, 1.0, "first_if_stable", Stability(0.05, 0.98), 32.0
)
SIZES = [(1, 1), (1, 5000), (5000, 1), (64, 64), (63, 64), (300, 420), (1500, 1100), (17, 400)]


def logits(seed: int, side: int = 16) -> np.ndarray:
    """Return smooth logits [side, side], from -10 to 10."""
    coarse = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, 1, 6, 6)) * 4)
    wide = functional.interpolate(coarse, (side, side), mode="bicubic")
    return wide[0, 0].numpy().astype(np.float32)


def geometry_for(height: int, width: int, rules: Postprocessing) -> Geometry:
    return geometry_of(
        height, width, 64, "square" if rules.upscale == "bilinear_direct" else "longest_side"
    )


def given(rules: Postprocessing, geometry: Geometry) -> dict[str, object]:
    named = {
        "imageSize": geometry.image_size,
        "resized": geometry.resized,
        "original": geometry.original,
    }
    return {"rules": msgspec.to_builtins(rules), "geometry": named}


def upscaled(low_res: np.ndarray, geometry: Geometry, rules: Postprocessing) -> np.ndarray:
    """Return the logits of the image by torch, as SAM and SAM 2 compute them, in float64."""
    wide = torch.from_numpy(low_res.astype(np.float64))[None, None]
    if rules.upscale == "bilinear":
        height, width = geometry.resized
        wide = functional.interpolate(wide, (64, 64), mode="bilinear")[..., :height, :width]
    return functional.interpolate(wide, geometry.original, mode="bilinear")[0, 0].numpy()


def every() -> list[tuple[np.ndarray, Geometry, Postprocessing]]:
    sizes = [*SIZES, *np.random.default_rng(2).integers(1, 500, (12, 2)).tolist()]
    return [
        (logits(index), geometry_for(height, width, rules), rules)
        for index, (height, width) in enumerate(sizes)
        for rules in (RULES, SAM2_RULES)
    ]


def test_upscale_is_torchs(cases: Cases) -> None:
    for low_res, geometry, rules in every():
        cases.add("upscale", low_res, **given(rules, geometry))
    for (low_res, geometry, rules), made in zip(every(), cases.run(), strict=True):
        expected = upscaled(low_res, geometry, rules)
        found = np.asarray(made).reshape(geometry.original)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_masks_are_segment_anythings(cases: Cases) -> None:
    for low_res, geometry, rules in every():
        cases.add("masks", low_res, **given(rules, geometry))
    for (low_res, geometry, rules), made in zip(every(), cases.run(), strict=True):
        whole = upscaled(low_res, geometry, rules)
        expected = np.asfortranarray(whole > 0, np.uint8)
        rle = coco.encode(expected)
        near = np.abs(whole) < 1e-4  # where float32 may decide otherwise
        if not near.any():
            assert made["rle"] == {"size": list(rle["size"]), "counts": rle["counts"].decode()}
        found = coco.decode({**made["rle"], "counts": made["rle"]["counts"].encode()})
        assert not (found != expected)[~near].any()
        assert made["area"] == found.sum()
        left, top, width, height = coco.toBbox(coco.encode(np.asfortranarray(found)))
        assert made["box"] == [left, top, left + width, top + height]
        if (whole > -1).any():
            score = calculate_stability_score(torch.from_numpy(whole)[None], 0.0, 1.0)
            assert abs(made["stability"] - float(score[0])) <= 2e-3


def test_rle_equals_pycocotools(cases: Cases) -> None:
    rng = np.random.default_rng(0)
    made = [np.zeros((7, 5)), np.ones((7, 5)), np.eye(9), np.ones((1, 1)), np.tri(300, 2000)]
    made += [rng.random(rng.integers(1, 60, 2)) < rng.random() for _ in range(40)]
    large = np.zeros((3000, 2500))  # runs of more than 20 bits
    large[10:20, 2400:] = 1
    masks = [np.asarray(mask, np.uint8) for mask in [*made, large]]
    for mask in masks:
        cases.add("rle", mask)
    for mask, result in zip(masks, cases.run(), strict=True):
        rle = coco.encode(np.asfortranarray(mask))
        assert result["rle"] == {"size": list(rle["size"]), "counts": rle["counts"].decode()}
        assert sum(result["runs"]) == mask.size


def sam2_choice(low_res: torch.Tensor, iou: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sam2's own choice of a single mask for each prompt."""
    from sam2.modeling.sam.mask_decoder import MaskDecoder

    class Rules:
        dynamic_multimask_stability_delta = 0.05
        dynamic_multimask_stability_thresh = 0.98
        _get_stability_scores = MaskDecoder._get_stability_scores

    chosen: tuple[torch.Tensor, torch.Tensor] = MaskDecoder._dynamic_multimask_via_stability(
        Rules(),  # type: ignore[arg-type]
        low_res,
        iou,
    )
    return chosen


def test_choice_is_sam2s(cases: Cases) -> None:
    rng = np.random.default_rng(0)
    low_res = np.stack([[logits(4 * b + c) * 8 for c in range(4)] for b in range(12)])
    low_res[:, 0] /= 100  # unstable, and the others exceed the limit of 32
    low_res[::3, 0] = np.where(low_res[::3, 0] > 0, 9, -9)  # stable first masks
    low_res[1, 0] = -5  # no pixel above -offset
    iou = rng.random((12, 4)).astype(np.float32)
    for rules in (RULES, SAM2_RULES):
        for multimask in (False, True):
            cases.add(
                "choose",
                low_res,
                iou=iou.tolist(),
                multimask=multimask,
                rules=msgspec.to_builtins(rules),
            )
    one, many, stable, sam2_many = cases.run()
    np.testing.assert_array_equal(np.reshape(one["logits"], one["shape"]), low_res[:, :1])
    np.testing.assert_array_equal(np.reshape(many["logits"], many["shape"]), low_res[:, 1:])
    np.testing.assert_array_equal(np.reshape(many["iou"], (12, 3)), iou[:, 1:])
    expected, scores = sam2_choice(torch.from_numpy(low_res), torch.from_numpy(iou))
    clipped = expected.clamp(-32, 32).numpy()
    np.testing.assert_array_equal(np.reshape(stable["logits"], stable["shape"]), clipped)
    np.testing.assert_array_equal(np.reshape(stable["iou"], (12, 1)), scores.numpy())
    replaced = scores.numpy() != iou[:, :1]
    assert 0 < replaced.sum() < len(replaced)
    np.testing.assert_array_equal(
        np.reshape(sam2_many["logits"], sam2_many["shape"]), low_res[:, 1:].clip(-32, 32)
    )
