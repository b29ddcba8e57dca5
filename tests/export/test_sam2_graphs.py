"""SAM 2's graph modules and presets agree with the sam2 package."""

from __future__ import annotations

import copy

import pytest
import torch

from glesam_export.families.sam2.graphs import HieraBlock, Sam2DecoderGraph, Sam2EncoderGraph
from glesam_export.families.sam2.presets import SAM2_PRESETS, SAM2_STABILITY, Sam2Preset
from glesam_export.families.sam2.reference import (
    NumbersOnCpu,
    Sam2Encoder,
    build_sam2_decoder,
    build_sam2_encoder,
)

from .conftest import random_nano2, relative

SHAPES = {
    "windows fit": {"windows": (8, 4, 8, 4)},
    "windows padded": {"windows": (6, 4, 14, 7)},
    "a window is the image": {"windows": (8, 4, 16, 8), "global_blocks": ()},
    "one padded window": {"windows": (64, 32, 24, 12)},
    "two heads, an odd scale": {"embed_dim": 36, "heads": 2, "background": 5},
    "global wherever it can be": {"global_blocks": (0, 2, 4, 5, 7)},
}


pytestmark = pytest.mark.usefixtures("no_gradients")


def preset(**differences: object) -> Sam2Preset:
    shape = {
        "embed_dim": 16,
        "heads": 1,
        "blocks": (1, 2, 3, 2),
        "global_blocks": (4,),
        "windows": (8, 4, 6, 3),
        "background": 7,
    }
    return Sam2Preset("t", release="2", image_size=256, **(shape | differences))  # type: ignore[arg-type]


def perturbed_encoder(made: Sam2Preset) -> Sam2Encoder:
    encoder = build_sam2_encoder(made).double().eval()
    for parameter in encoder.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return encoder


@pytest.mark.parametrize("name", SHAPES)
def test_hiera_blocks(name: str) -> None:
    """Test windowed and global blocks, with and without padding and pooled queries."""
    side = 64
    for block in perturbed_encoder(preset(**SHAPES[name])).image_encoder.trunk.blocks:
        x = torch.randn(2, side, side, block.dim).double()
        expected = block(x)
        made = HieraBlock(block, side)
        found = made(x.flatten(1, 2))
        assert relative(found.unflatten(1, expected.shape[1:3]), expected) < 1e-12
        side = made.out_side
    assert side == 8


def test_encoder_with_the_pyramid_multiplied_out() -> None:
    reference = perturbed_encoder(preset())
    image = torch.randn(2, 3, 256, 256)
    expected = reference(image.double())
    graph = Sam2EncoderGraph(copy.deepcopy(reference), 256)
    graph.dtype = torch.float64
    for made, theirs in zip(graph(image), expected, strict=True):
        assert made.shape == theirs.shape
        assert made.dtype == torch.float32
        assert relative(made.double(), theirs) < 1e-7


@pytest.mark.parametrize("has_mask", [0.0, 1.0])
@pytest.mark.parametrize(
    "labels",
    [[1, 0, -1], [2, 3, -1], [0, 1, 2, 3, -1], []],
    ids=["points", "box", "both", "none"],
)
def test_decoder(labels: list[int], has_mask: float) -> None:
    if not labels and not has_mask:
        pytest.skip("no prompt at all")
    checkpoint = random_nano2()
    count = len(labels)
    coords = torch.rand(3, count, 2) * 256
    inputs = {
        "image_embeddings": torch.randn(1, 256, 16, 16),
        "high_res_feats_0": torch.randn(1, 32, 64, 64),
        "high_res_feats_1": torch.randn(1, 64, 32, 32),
        "point_coords": coords,
        "point_labels": torch.tensor([labels] * 3, dtype=torch.float32).reshape(3, count),
        "mask_input": torch.randn(3, 1, 64, 64),
        "has_mask_input": torch.tensor([has_mask]),
    }
    expected_masks, expected_iou = checkpoint.decoder()(**inputs)
    decoder = checkpoint.decoder()
    masks, iou = Sam2DecoderGraph(decoder.prompt_encoder, decoder.mask_decoder)(**inputs)
    assert masks.shape == (3, 4, 64, 64)
    assert relative(masks, expected_masks) < 3e-6
    torch.testing.assert_close(iou, expected_iou, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in SAM2_PRESETS if n != "nano2"])
def test_presets_are_sam2s(name: str) -> None:
    """Compare parameters and module structure with those that sam2 builds."""
    from sam2.build_sam import build_sam2

    made = SAM2_PRESETS[name]
    with torch.device("meta"), NumbersOnCpu():
        theirs = build_sam2(f"configs/sam{made.release}/{name}.yaml", device="meta")
        encoder, decoder = build_sam2_encoder(made), build_sam2_decoder(made)
    parts = {
        "image_encoder": (encoder.image_encoder, theirs.image_encoder),
        "prompt_encoder": (decoder.prompt_encoder, theirs.sam_prompt_encoder),
        "mask_decoder": (decoder.mask_decoder, theirs.sam_mask_decoder),
    }
    for ours, reference in parts.values():
        # Printed modules name classes, sizes, strides and norms' eps.
        assert repr(ours) == repr(reference)
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (ours, reference)]
        assert shapes[0] == shapes[1]
    assert encoder.no_mem_embed.shape == theirs.no_mem_embed.shape
    ours, reference = encoder.image_encoder, theirs.image_encoder
    for mine, block in zip(ours.trunk.blocks, reference.trunk.blocks, strict=True):
        assert (mine.window_size, mine.q_stride) == (block.window_size, block.q_stride)
        assert mine.attn.num_heads == block.attn.num_heads
    assert ours.neck.fpn_top_down_levels == list(reference.neck.fpn_top_down_levels)
    assert ours.neck.fpn_interp_model == reference.neck.fpn_interp_model
    assert (ours.scalp, made.image_size) == (reference.scalp, theirs.image_size)
    assert theirs.directly_add_no_mem_embed
    masks = theirs.sam_mask_decoder
    assert masks.dynamic_multimask_via_stability
    assert masks.dynamic_multimask_stability_delta == SAM2_STABILITY.offset
    assert masks.dynamic_multimask_stability_thresh == SAM2_STABILITY.threshold
    assert masks.iou_prediction_head.sigmoid_output == (
        decoder.mask_decoder.iou_prediction_head.sigmoid_output
    )
