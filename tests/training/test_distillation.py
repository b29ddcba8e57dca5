"""Nano2 starts from nano: its decoder predicts nano's masks, its encoder learns nano's latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from glesam_evaluation.datasets import SceneDataset
from glesam_evaluation.metrics import iou
from glesam_export.families import HIGH_RES, family_of, named_features
from glesam_export.presets import sam_preset
from glesam_export.weight_options import WeightOptions
from glesam_export.weights import make_checkpoint
from glesam_runtime.chain import EMBEDDINGS
from glesam_runtime.image import preprocess
from glesam_training.nano import steps
from glesam_training.nano.distillation import LatentObjective, SamePictures, copy_decoder
from glesam_training.nano.recipe import NANO2, QUICK2, RECIPES, _short
from glesam_training.nano.sam import SamNano
from glesam_training.nano.scenes import store_scenes
from glesam_training.objectives import predict_masks

NANO, OTHER = sam_preset("nano"), sam_preset("nano2")


@pytest.fixture
def student() -> SamNano:
    torch.manual_seed(0)
    return SamNano(OTHER)


@torch.no_grad()
def test_a_copied_decoder_finds_the_same_objects(student: SamNano) -> None:
    """Its masks are nearly nano's, and what SAM 2's decoder has in addition changes little.

    The token of the object's score takes part in the attention, so they are not the same. Features
    of high resolution are zero until they are trained.
    """
    nano = make_checkpoint(WeightOptions("nano"))
    teacher, rules = nano.decoder(), family_of(NANO).preprocessing(NANO)
    shown = [preprocess(SceneDataset(2)[i].image, rules).tensor[0] for i in range(2)]
    latents = named_features(nano.encoder()(torch.from_numpy(np.stack(shown))))[EMBEDDINGS]
    copy_decoder(student, teacher)
    generator = torch.Generator().manual_seed(0)
    coords = torch.rand(2, 8, 2, 2, generator=generator) * 256
    labels = torch.tensor([1.0, -1.0]).expand(2, 8, 2)
    wanted, scores = predict_masks(teacher, {EMBEDDINGS: latents}, coords, labels)
    features = named_features(student.encoder(torch.randn(2, 3, 256, 256, generator=generator)))
    features[EMBEDDINGS] = latents
    assert not any(features[name].any() for name in HIGH_RES)
    masks, squashed = predict_masks(student.decoder, features, coords, labels)
    assert iou((masks > 0).flatten(0, 2).numpy(), (wanted > 0).flatten(0, 2).numpy()).mean() > 0.7
    # SAM 2 predicts an IoU through a sigmoid.
    assert float((squashed - scores.sigmoid()).abs().mean()) < 0.03


def test_another_decoder_is_refused(student: SamNano) -> None:
    other = SamNano(NANO).decoder
    del other.prompt_encoder.no_mask_embed
    with pytest.raises(ValueError, match=r"has no prompt_encoder\.no_mask_embed"):
        copy_decoder(student, other)


def test_pictures_are_the_same_for_both(student: SamNano) -> None:
    """SAM's and SAM 2's inputs are the same pixels with other means and deviations."""
    pictures = SamePictures(SceneDataset(3), OTHER, NANO, 5, seed=1)
    assert len(pictures) == 5
    shown = set()
    for number in range(5):
        found, again = pictures[number], pictures[number]
        assert all(torch.equal(found[name], again[name]) for name in found)
        pixels = []
        for name, rules in pictures.rules.items():
            mean, deviation = (
                torch.tensor(each)[:, None, None] for each in (rules.mean, rules.std)
            )
            scale = 255 if max(rules.mean) < 1 else 1
            pixels.append(scale * (found[name] * deviation + mean))
        torch.testing.assert_close(*pixels, rtol=0, atol=1e-2)
        shown.add(float(pixels[0].sum()))
    assert 1 < len(shown) <= 3


def test_the_error_is_that_of_the_latents(student: SamNano) -> None:
    pictures = SamePictures(SceneDataset(2), OTHER, OTHER, 2, seed=0)
    batch = {name: torch.stack([pictures[i][name] for i in range(2)]) for name in pictures[0]}
    own = LatentObjective(student, student.encoder)(batch, 0.0)
    assert float(own["loss"]) == 0
    torch.manual_seed(1)
    other = SamNano(OTHER).encoder
    found = LatentObjective(student, other)(batch, 0.0)
    with torch.no_grad():
        mine, theirs = (
            named_features(encoder(batch["own"]))[EMBEDDINGS].numpy().astype(np.float64)
            for encoder in (student.encoder, other)
        )
    error = np.square(mine - theirs).mean()
    assert float(found["loss"].detach()) == pytest.approx(error, rel=1e-4)
    spread = theirs.var(axis=(0, 2, 3), ddof=1).mean()
    assert float(found["share"]) == pytest.approx(error / spread, rel=1e-3)


def test_an_encoder_learns_nanos_latents(tmp_path: Path, student: SamNano) -> None:
    """A few iterations on few scenes bring it near; a resumed step is not run again."""
    stored = store_scenes(tmp_path, 8, 0, 256)
    assert NANO2.distilled is not None
    once = _short(replace(NANO2.distilled, lr=1e-3, warmup=0), 12, batch=2)
    recipe = replace(QUICK2, scenes=8, distilled=once, varied=_short(QUICK2.varied, 1, batch=2))
    said: dict[str, list[float]] = {}

    def show(step: str, done: int, total: int, losses: dict[str, float]) -> None:
        said.setdefault(step, []).append(losses.get("share", losses["loss"]))

    made = steps.make_sam(tmp_path, stored, recipe, 0, show)
    assert set(said) == {"nano's latents", "SAM-nano, varied"}
    assert said["nano's latents"][-1] < 0.7 * said["nano's latents"][0]
    said.clear()
    assert steps.make_sam(tmp_path, stored, recipe, 0, show) == made
    assert not said


def test_every_preset_has_both_recipes() -> None:
    assert {preset for preset, _ in RECIPES} == {"nano", "nano2"}
    for (preset, quick), recipe in RECIPES.items():
        assert recipe.preset == preset
        assert (recipe.distilled is None) == (quick or preset == "nano")
        assert quick == (recipe.varied.iterations < 100)
    assert RECIPES["nano2", False] is NANO2
