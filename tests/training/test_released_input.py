"""Training with `--input released` prepares images, prompts and targets as the bundle will."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from glesam_evaluation.datasets import Sample
from glesam_export.checkpoints.formats import open_checkpoint
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.families import family_of, with_input
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.image import preprocess
from glesam_training.examples import ExampleOptions, Examples
from glesam_training.latents import store_latents
from glesam_training.reference_segmenters import ReferenceStages
from glesam_training.trained_checkpoint import TrainedCheckpoint, write_checkpoint
from glesam_training.training_record import BEFORE, checkpoint_record

SAM = sam_preset("nano")
RELEASED = with_input(SAM, "released")


class HalfOfAWideImage:
    """One image of 100 x 300 pixels whose left half is the object."""

    names = ("wide",)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        image = np.random.default_rng(0).integers(0, 256, (100, 300, 3), dtype=np.uint8)
        mask = np.zeros((1, 100, 300), np.bool_)
        mask[:, :, :150] = True
        return Sample("wide", image, mask)


def random_checkpoint(preset: object = RELEASED) -> RandomCheckpoint:
    return RandomCheckpoint(0, preset, unet_preset("nano"), 5.0, 1)


def test_examples_are_squashed() -> None:
    data = HalfOfAWideImage()
    example = Examples(data, RELEASED, 1, ExampleOptions(levels=(0,), masks=1, jitter=0.0))[0]
    expected = preprocess(data[0].image, family_of(RELEASED).preprocessing(RELEASED)).tensor[0]
    np.testing.assert_array_equal(example["clear"].numpy(), expected)
    target = example["target"][0]
    assert torch.equal(target[:, :32], torch.ones(64, 32))
    assert torch.equal(target[:, 32:], torch.zeros(64, 32))
    np.testing.assert_allclose(example["boxes"][0].numpy(), [0, 0, 128, 256])
    assert float(example["points"][..., 0].max()) < 128
    assert float(example["points"][..., 1].max()) > 256 * 100 / 300


def test_a_checkpoint_is_evaluated_with_its_own_input() -> None:
    stages = ReferenceStages(random_checkpoint(), "cpu")
    assert stages.preprocessing == family_of(RELEASED).preprocessing(RELEASED)
    assert stages.postprocessing.upscale == "bilinear_direct"


def test_the_trained_checkpoint_has_the_input(tmp_path: Path) -> None:
    base = random_checkpoint()
    assert TrainedCheckpoint(base).preset.input == "released"
    assert open_checkpoint(write_checkpoint(base, tmp_path)).preset.input == "released"


def test_a_training_with_another_input_is_not_resumed(tmp_path: Path) -> None:
    """The record is what a resume compares. States of earlier versions mean SAM's input."""
    assert checkpoint_record(random_checkpoint(), tmp_path)["--input"].value == "released"
    assert checkpoint_record(random_checkpoint(SAM), tmp_path)["--input"] == BEFORE["--input"]
    assert BEFORE["--input"].value == "sam"


def test_stored_latents_of_another_input_are_not_used(tmp_path: Path) -> None:
    options = ExampleOptions(levels=(0,), masks=1, variants=1)
    encoder = random_checkpoint().encoder()
    paths = {
        store_latents(
            tmp_path, encoder, Examples(HalfOfAWideImage(), preset, 1, options), workers=0
        ).path
        for preset in (SAM, RELEASED)
    }
    assert len(paths) == 2
