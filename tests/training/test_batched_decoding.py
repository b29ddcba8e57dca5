"""Many images at once give the masks that the family's own decoder gives one by one."""

from __future__ import annotations

import pytest
import torch

from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.families import HIGH_RES
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.chain import EMBEDDINGS
from glesam_training.objectives import predict_masks

IMAGES, PROMPTS = 3, 2


@pytest.mark.parametrize("name", ["nano", "nano2"])
@pytest.mark.parametrize(
    "row", [[1, -1], [1, 1, 0, -1], [2, 3], [1, 0, 2, 3]], ids=["point", "points", "box", "both"]
)
def test_as_one_image_at_a_time(name: str, row: list[int]) -> None:
    checkpoint = RandomCheckpoint(0, sam_preset(name), unet_preset("nano"), 1.0, 1)
    decoder = checkpoint.decoder()
    generator = torch.Generator().manual_seed(1)
    features = {EMBEDDINGS: torch.randn(IMAGES, 256, 16, 16, generator=generator)}
    if name == "nano2":
        row = row if row[-1] == -1 else [*row, -1]  # its contract always has a padding point
        for key, shape in zip(HIGH_RES, ((32, 64, 64), (64, 32, 32)), strict=True):
            features[key] = torch.randn(IMAGES, *shape, generator=generator)
    coords = 256 * torch.rand(IMAGES, PROMPTS, len(row), 2, generator=generator)
    labels = torch.tensor(row, dtype=torch.float32).expand(IMAGES, PROMPTS, -1)
    with torch.no_grad():
        masks, scores = predict_masks(decoder, features, coords, labels)
        for n in range(IMAGES):
            expected, iou = decoder(
                point_coords=coords[n],
                point_labels=labels[n],
                mask_input=torch.zeros(PROMPTS, 1, 64, 64),
                has_mask_input=torch.zeros(1),
                **{key: each[n : n + 1] for key, each in features.items()},
            )
            torch.testing.assert_close(masks[n], expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(scores[n], iou, rtol=1e-4, atol=1e-4)
