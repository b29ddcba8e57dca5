"""SAM 2 in training and evaluation: its enhancer can be trained, its decoder is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor

from glesam_evaluation.datasets import open_dataset
from glesam_evaluation.scenes import make_scene
from glesam_export.checkpoints.formats import open_checkpoint
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.families.sam2.reference import build_sam2
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.errors import InputError
from glesam_training.examples import ExampleOptions
from glesam_training.reference_segmenters import reference_segmenters
from glesam_training.settings import TrainingSettings
from glesam_training.train import Job, train_decoder, train_enhancer
from glesam_training.trained_checkpoint import write_checkpoint


@pytest.fixture
def checkpoint() -> RandomCheckpoint:
    return RandomCheckpoint(0, sam_preset("nano2"), unet_preset("nano"), 0.5, 1)


def job(folder: Path, latents: Path | None = None) -> Job:
    settings = TrainingSettings(iterations=2, batch=2, workers=0, lr=1e-3, log_every=1)
    options = ExampleOptions(masks=2, variants=1 if latents else None)
    return Job(open_dataset("scenes:2"), settings, options, folder, latents)


@pytest.mark.parametrize("kept", [False, True], ids=["encoded each time", "latents kept"])
def test_the_enhancer_is_trained_and_written(
    kept: bool, checkpoint: RandomCheckpoint, tmp_path: Path
) -> None:
    before = checkpoint.enhancer().state_dict()
    after = train_enhancer(checkpoint, job(tmp_path, tmp_path / "latents" if kept else None))
    found = {name for name, value in after.state_dict().items() if not value.equal(before[name])}
    assert found
    assert all(".lora_" in name for name in found)
    again = open_checkpoint(write_checkpoint(checkpoint, tmp_path, enhancer=after))
    assert again.preset.name == "nano2"
    encoder = checkpoint.encoder().state_dict()
    assert all(value.equal(encoder[name]) for name, value in again.encoder().state_dict().items())


def test_the_decoder_is_refused(checkpoint: RandomCheckpoint, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nano2: only SAM's decoder can be trained"):
        train_decoder(checkpoint, job(tmp_path), "tokens")
    with pytest.raises(InputError, match="nano2: only SAM's decoder can be trained"):
        train_enhancer(checkpoint, job(tmp_path), mask_weight=1.0)


def test_the_reference_segments_as_sam2_does(checkpoint: RandomCheckpoint) -> None:
    """With random weights masks are noise, but both give the same noise."""
    image = make_scene(3, 180, 240).image
    boxes = np.array([[20.0, 30, 120, 140], [100, 10, 230, 170]])
    predictor = SAM2ImagePredictor(build_sam2(checkpoint.encoder(), checkpoint.decoder()))
    predictor._bb_feat_sizes = [(64, 64), (32, 32), (16, 16)]
    predictor.set_image(image)
    for name, segmenter in reference_segmenters(checkpoint, "cpu").items():
        if name == "with enhancer":
            with torch.no_grad():
                embedding = checkpoint.enhancer()(predictor._features["image_embed"])
                predictor._features["image_embed"] = embedding.float()
        segmenter.set_image(image)
        expected, _, _ = predictor.predict(box=boxes, multimask_output=False)
        masks = segmenter.segment(None, None, boxes)
        assert 0 < expected.mean() < 1
        assert (masks != expected[:, 0]).mean() < 1e-3, name
