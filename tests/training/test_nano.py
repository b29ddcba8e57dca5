"""The modules that only nano needs."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from skimage.measure import regionprops

from glesam_evaluation.datasets import SceneDataset
from glesam_evaluation.protocol import Row
from glesam_evaluation.results import Results
from glesam_export.checkpoints.stable_diffusion import SCHEDULE
from glesam_export.enhancer.reference import ADAPTER
from glesam_export.presets import sam_preset, unet_preset
from glesam_training.examples import CLEAR, ExampleOptions, Examples
from glesam_training.nano import ablation_table, scenes
from glesam_training.nano.coins import Coins, coin_masks
from glesam_training.nano.diffusion import (
    Crops,
    DiffusionObjective,
    PatchAutoencoder,
    build_base,
)
from glesam_training.nano.held_out_report import LatentError, latent_errors
from glesam_training.nano.recipe import QUICK
from glesam_training.nano.sam import ClearExamples, SamNano
from glesam_training.nano.scenes import Varied, store_scenes

from ..export.conftest import random_nano


def test_stored_scenes_are_the_scenes(tmp_path: Path) -> None:
    painted: list[int] = []
    stored = store_scenes(tmp_path, 3, 40, 256, painted.append)
    assert sum(painted) == 3
    fresh = SceneDataset(3, 40)
    assert list(stored.names) == list(fresh.names)
    for index in range(3):
        kept, made = stored[index], fresh[index]
        assert np.array_equal(kept.image, made.image)
        assert np.array_equal(kept.masks, made.masks)
    assert len(stored.first_pictures(2)) == 2
    store_scenes(tmp_path, 3, 40, 256, lambda _: pytest.fail("found, not painted again"))


def test_varied_scenes_keep_their_objects(tmp_path: Path) -> None:
    """Image and masks are turned and mirrored alike, and the same number gives the same picture."""
    varied = Varied(store_scenes(tmp_path, 3, 40, 256), copies=8, seed=0)
    assert len(varied) == len(varied.names) == 24
    gray = aligned = 0
    for index in range(24):
        plain, sample = varied.scenes[index % 3], varied[index]
        assert np.array_equal(sample.image, varied[index].image)
        gray += bool((sample.image == sample.image[..., :1]).all())
        areas = [sorted(s.masks.reshape(len(s.masks), -1).sum(1)) for s in (plain, sample)]
        assert areas[0] == areas[1]
        # These masks part the picture better than turned ones, so both were turned alike.
        turned = np.rot90(sample.masks, axes=(1, 2))
        aligned += _parted(sample.image, sample.masks) > _parted(sample.image, turned)
    assert aligned >= 22
    assert 4 <= gray <= 16
    assert sum(np.array_equal(varied[i].masks, varied.scenes[i % 3].masks) for i in range(24)) < 12


def test_varied_scenes_are_numpys(tmp_path: Path) -> None:
    """OpenCV's fast code equals numpy: turned pictures, and surfaces in their mean colour."""
    image, instances = store_scenes(tmp_path, 1, 40, 256).painted(0)
    for turns, mirrored in product(range(4), (False, True)):
        wanted = np.rot90(image, turns)
        wanted = wanted[:, ::-1] if mirrored else wanted
        np.testing.assert_array_equal(scenes._turned(image, turns, mirrored), wanted)
    flat = scenes._flat(image, instances)
    for number in np.unique(instances):
        shown = instances == number
        mean = image[shown].mean(axis=0, dtype=np.float64)
        np.testing.assert_allclose(flat[shown], np.tile(mean, (shown.sum(), 1)), rtol=1e-6)


def test_sam_nano_learns_from_what_algorithm_1_sees_as_clear(tmp_path: Path) -> None:
    stored = store_scenes(tmp_path, 3, 40, 256)
    options = ExampleOptions(levels=(CLEAR,))
    one, both = (kind(stored, sam_preset("nano"), 6, options) for kind in (ClearExamples, Examples))
    for number in range(6):
        assert both[number].keys() - one[number].keys() == {"low"}
        assert all(torch.equal(one[number][key], both[number][key]) for key in one[number])


def _parted(image: np.ndarray, masks: np.ndarray) -> float:
    """Return the share of an image's variance between its objects, not within them."""
    inside = [image[mask].reshape(-1, 3).astype(np.float64) for mask in masks]
    pixels = np.concatenate(inside)
    within = sum(((part - part.mean(0)) ** 2).sum() for part in inside)
    return 1 - within / ((pixels - pixels.mean(0)) ** 2).sum()


def test_some_varied_scenes_are_plainer(tmp_path: Path) -> None:
    """In more than half of the scenes surfaces lose pattern, by a drawn factor."""
    varied = Varied(store_scenes(tmp_path, 4, 60, 256), copies=10, seed=0)
    plainer = 0
    for index in range(len(varied)):
        plain, sample = varied.scenes[index % 4], varied[index]
        patterned = [
            np.mean([s.image[mask].std(0).mean() / s.image.std() for mask in s.masks])
            for s in (plain, sample)
        ]
        plainer += patterned[1] < 0.8 * patterned[0]
    assert 8 <= plainer <= 32, plainer


def test_coins_are_round_apart_and_bright() -> None:
    sample = Coins()[0]
    gray = data.coins()
    assert sample.masks.shape == (24, *gray.shape)
    assert int(sample.masks.sum(0).max()) == 1, "no two coins share a pixel"
    for mask in sample.masks:
        (region,) = regionprops(mask.astype(np.uint8))
        assert region.eccentricity < 0.65
        assert region.solidity > 0.9
        assert gray[mask].mean() > gray[~sample.masks.any(0)].mean() + 40
    with pytest.raises(IndexError):
        Coins()[1]
    with pytest.raises(ValueError, match="instead of 24"):
        coin_masks(gray[:150])


def test_the_autoencoder_whitens() -> None:
    scenes = SceneDataset(8)
    encoder = PatchAutoencoder(scenes, 0)
    pixels = torch.stack([torch.from_numpy(scenes[i].image.copy()) for i in range(8)])
    latents = encoder.encode(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
    assert latents.shape == (8, 4, 32, 32)
    flat = latents.transpose(0, 1).flatten(1)
    covariance = torch.cov(flat)
    torch.testing.assert_close(covariance, torch.eye(4), atol=0.25, rtol=0)
    # The components are the covariance's leading directions: no other has more variance.
    assert float(flat.mean(1).abs().max()) < 0.2


def test_noise_that_is_not_predicted_costs_one() -> None:
    unet, text = build_base(unet_preset("nano"), 0)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    objective = DiffusionObjective(PatchAutoencoder(SceneDataset(4), 0), unet, text)
    crops = Crops(SceneDataset(4), 100, 128, 0)
    batch = {"pixels": torch.stack([crops[i]["pixels"] for i in range(8)])}
    torch.manual_seed(0)
    assert float(objective(batch, 0.0)["loss"]) == pytest.approx(1, abs=0.05)
    assert objective.scheduler.config.num_train_timesteps == SCHEDULE["num_train_timesteps"]
    assert torch.equal(crops[3]["pixels"], crops[3]["pixels"])
    assert crops[3]["pixels"].shape == (3, 128, 128)


def test_sam_nano_knows_places_from_the_start() -> None:
    sam = SamNano(sam_preset("nano"))
    assert float(sam.encoder.pos_embed.detach().abs().mean()) > 0.01


def test_latent_errors_are_the_formula() -> None:
    checkpoint = random_nano(0, 0.5, 1)
    errors = latent_errors(checkpoint, SceneDataset(1))
    assert [e.condition for e in errors][:3] == ["LQ-1", "LQ-2", "LQ-3"]
    assert errors[0].before < errors[2].before, "LQ-3 is farther from clear than LQ-1"
    assert LatentError("x", 4.0, 3.0).lower == 0.25


def test_the_table_means_over_seeds() -> None:
    conditions = ("clear", "LQ-1", "LQ-2", "LQ-3", "haze", "low_contrast", "darkness")

    def results(shift: float) -> Results:
        rows = tuple(
            Row("a", 0, condition, "3-point", name, 0.5 + (shift if "GLE" in name else 0), 0.5, 0.5)
            for name in ablation_table.METHODS
            for condition in conditions
        )
        return Results("nano", "scenes:1", 0, rows)

    text = ablation_table.table_markdown([results(0.01), results(0.03)])
    assert "| SAM | 50.00 ± 0.00 |" in text
    assert "| GLE | 52.00 ± 1.41 |" in text
    assert "| GLE-FT-D over SAM-FT-D | +2.00 ± 1.41 |" in text


def test_every_row_of_the_table_is_trained_and_found_again(tmp_path: Path) -> None:
    once = replace(QUICK.enhancer, iterations=1, batch=2)
    recipe = replace(
        QUICK,
        scenes=2,
        pictures=2,
        sam=once,
        varied=once,
        base=replace(once, lr=1e-2),
        fit_pairs=32,
        enhancer=once,
        decoder=once,
    )
    said: list[str] = []
    methods = ablation_table.train_methods(
        tmp_path, recipe, 0, 1, lambda step, *_: said.append(step)
    )
    assert tuple(methods) == ablation_table.METHODS
    assert [name for name, method in methods.items() if not method.enhance] == list(
        ablation_table.METHODS[:3]
    )

    def weights(name: str, layer: str) -> torch.Tensor:
        return methods[name].checkpoint.enhancer().unet.get_parameter(layer).detach()

    norm, adapter = "conv_norm_out.weight", f"conv_in.lora_B.{ADAPTER}.weight"
    assert not torch.equal(weights("GLE", norm), torch.ones(32))
    assert torch.equal(weights(ablation_table.UNTRAINED, norm), torch.ones(32)), "as it was made"
    fitted, stage_1, stage_2 = (weights(m, adapter) for m in ("SAM", "GLE", "GLE-FT-D"))
    assert not torch.equal(fitted, stage_1)
    assert torch.equal(stage_1, stage_2)
    said.clear()
    ablation_table.train_methods(tmp_path, recipe, 0, 1, lambda step, *_: said.append(step))
    assert said == []
