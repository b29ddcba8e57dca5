"""Many images at once give the masks that segment_anything's decoder gives one by one."""

from __future__ import annotations

import pytest
import torch

from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.presets import sam_preset, unet_preset
from glesam_training.objectives import predict_masks

IMAGES, PROMPTS = 3, 2


@pytest.mark.parametrize(
    "row", [[1, -1], [1, 1, 0, -1], [2, 3], [1, 0, 2, 3]], ids=["point", "points", "box", "both"]
)
def test_as_one_image_at_a_time(row: list[int]) -> None:
    checkpoint = RandomCheckpoint(0, sam_preset("nano"), unet_preset("nano"), 1.0, 1)
    decoder = checkpoint.decoder()
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(IMAGES, 256, 16, 16, generator=generator)
    coords = 256 * torch.rand(IMAGES, PROMPTS, len(row), 2, generator=generator)
    labels = torch.tensor(row, dtype=torch.float32).expand(IMAGES, PROMPTS, -1)
    with torch.no_grad():
        masks, scores = predict_masks(decoder, embeddings, coords, labels)
        for n in range(IMAGES):
            expected, iou = decoder(
                embeddings[n : n + 1],
                coords[n],
                labels[n],
                torch.zeros(PROMPTS, 1, 64, 64),
                torch.zeros(1),
            )
            torch.testing.assert_close(masks[n], expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(scores[n], iou, rtol=1e-4, atol=1e-4)
