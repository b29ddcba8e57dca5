"""Each graph module equals segment_anything's or diffusers' own forward, in float64."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT

from glesam_export.families.sam.decoder import DecoderGraph, PointEmbedding
from glesam_export.families.sam.encoder import EncoderBlock, EncoderGraph
from glesam_export.families.sam.presets import SamPreset
from glesam_export.families.sam.reference import build_encoder

from .conftest import random_nano, relative

pytestmark = pytest.mark.usefixtures("no_gradients")


def perturbed_encoder(preset: SamPreset) -> ImageEncoderViT:
    encoder = build_encoder(preset).double().eval()
    for parameter in encoder.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return encoder


@pytest.mark.parametrize(
    ("side", "window", "embed", "heads"),
    [(256, 8, 64, 4), (256, 7, 64, 4), (160, 14, 96, 3), (224, 14, 80, 1)],
    ids=["windows fit", "windows padded", "one padded window", "window is the image, odd scale"],
)
def test_encoder_blocks(side: int, window: int, embed: int, heads: int) -> None:
    """Test windowed and global blocks, with and without padding, at odd scales too."""
    preset = SamPreset("t", side, embed, 2, heads, (1,), window, 64, "nano")
    encoder = perturbed_encoder(preset)
    x = torch.randn(2, side // 16, side // 16, embed).double()
    for block in encoder.blocks:
        expected = block(x)
        found = EncoderBlock(block, side // 16)(x.flatten(1, 2))
        assert relative(found.unflatten(1, expected.shape[1:3]), expected) < 1e-12


def test_encoder() -> None:
    checkpoint = random_nano()
    image = torch.randn(2, 3, 256, 256)
    expected = checkpoint.encoder().double()(image.double())
    graph = EncoderGraph(checkpoint.encoder())
    assert relative(graph(image).double(), expected) < 3e-6


@pytest.mark.parametrize("has_mask", [0.0, 1.0])
@pytest.mark.parametrize(
    "labels", [[1, 0, -1], [2, 3], [0, 1, 2, 3], []], ids=["points", "box", "both", "none"]
)
def test_decoder(labels: list[int], has_mask: float) -> None:
    if not labels and not has_mask:
        pytest.skip("no prompt at all")
    checkpoint = random_nano()
    count = len(labels)
    coords = torch.rand(3, count, 2) * 256
    if -1 in labels:
        coords[:, labels.index(-1)] = 0
    inputs = (
        torch.randn(1, 256, 16, 16),
        coords,
        torch.tensor([labels] * 3, dtype=torch.float32).reshape(3, count),
        torch.randn(3, 1, 64, 64),
        torch.tensor([has_mask]),
    )
    expected_masks, expected_iou = checkpoint.decoder()(*inputs)
    decoder = checkpoint.decoder()
    masks, iou = DecoderGraph(decoder.prompt_encoder, decoder.mask_decoder)(*inputs)
    assert masks.shape == (3, 4, 64, 64)
    assert relative(masks, expected_masks) < 3e-6
    torch.testing.assert_close(iou, expected_iou, rtol=1e-4, atol=1e-5)


def test_point_embedding_is_the_prompt_encoders() -> None:
    encoder = random_nano().decoder().prompt_encoder
    coords, labels = torch.rand(2, 4, 2) * 256, torch.tensor([[1.0, 0.0, 1.0, 0.0]] * 2)
    expected, _ = encoder(points=(coords, labels), boxes=None, masks=None)
    padded = torch.cat([coords, torch.zeros(2, 1, 2)], 1), torch.cat([labels, -torch.ones(2, 1)], 1)
    torch.testing.assert_close(PointEmbedding(encoder)(*padded), expected, rtol=0, atol=3e-5)
