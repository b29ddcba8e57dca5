"""Latents as pictures: the principal components are numpy's, and equal features look alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glesam_evaluation.datasets import SceneDataset
from glesam_evaluation.features_plot import (
    IMAGES,
    KINDS,
    as_colours,
    draw_features,
    energy,
    measure_features,
    principal_components,
    shown_condition,
)
from glesam_evaluation.protocol import EvaluationPlan
from glesam_export.families import family_of
from glesam_export.presets import sam_preset
from glesam_runtime.manifest import Preprocessing


def latents(count: int = 3) -> list[np.ndarray]:
    """Draw latents whose variance lies in a few directions."""
    rng = np.random.default_rng(0)
    mixed = rng.normal(size=(20, 20)) * np.r_[9, 5, 3, np.ones(17)][:, None]
    return [
        np.float32(np.einsum("chw,cd->dhw", rng.normal(size=(20, 6, 5)), mixed))
        for _ in range(count)
    ]


def test_the_components_are_those_of_a_singular_value_decomposition() -> None:
    some = latents()
    flat = np.concatenate([z.reshape(20, -1).T for z in some]).astype(np.float64)
    _, _, vectors = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    mean, components = principal_components(some)
    np.testing.assert_allclose(mean, flat.mean(0))
    np.testing.assert_allclose(np.abs((components * vectors[:3]).sum(1)), 1, atol=1e-9)
    assert (components[np.arange(3), np.abs(components).argmax(1)] > 0).all()


def test_one_basis_and_one_scale_for_all() -> None:
    first, second, third = latents()
    alone = as_colours([first])[0]
    together = as_colours([first, second, third, first])
    assert together[0].shape == (6, 5, 3)
    assert together[0].dtype == np.uint8
    assert np.array_equal(together[0], together[3]), "equal latents have equal colours"
    assert not np.array_equal(alone, together[0]), "the others decide the basis too"
    assert as_colours([np.ones((20, 2, 2), np.float32)])[0].shape == (2, 2, 3)


def test_energy_is_the_mean_square() -> None:
    z = latents(1)[0]
    np.testing.assert_allclose(energy(z), np.einsum("chw,chw->hw", z, z) / 20, rtol=1e-5)


class Pooled:
    """Stages whose latent is the image's mean colours, and whose enhancer adds a half."""

    def __init__(self) -> None:
        self.enhanced = 0

    @property
    def preprocessing(self) -> Preprocessing:
        preset = sam_preset("nano")
        return family_of(preset).preprocessing(preset)

    def encode(self, image: np.ndarray) -> Any:
        pooled = image[0].reshape(3, 16, 16, 16, 16).mean((2, 4))
        return np.concatenate([pooled, pooled**2, np.ones((250, 16, 16), np.float32)])

    def enhance(self, embeddings: Any) -> Any:
        self.enhanced += 1
        return embeddings + 0.5

    def latent(self, embeddings: Any) -> np.ndarray:
        return np.float32(embeddings)


class Wide(SceneDataset):
    """Scenes cut to half of their height."""

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        sides = sample.image.shape[0] // 2
        return type(sample)(sample.name, sample.image[:sides], sample.masks[:, :sides])


def test_rows_hold_what_the_stages_give(tmp_path: Path) -> None:
    stages = Pooled()
    plan = EvaluationPlan(conditions=("clear", "LQ-1", "LQ-3", "fog"))
    found = measure_features(stages, Wide(IMAGES + 1), plan)  # type: ignore[arg-type]
    assert len(found) == stages.enhanced == IMAGES
    row = found[0]
    assert row.title.endswith("LQ-3")
    assert row.latents["z_L"].shape == (256, 8, 16), "without the padding"
    np.testing.assert_allclose(row.latents["z_H"], row.latents["z_L"] + 0.5, rtol=1e-6)
    assert row.error("clear latent") == 0
    difference = row.latents["z_L"].astype(np.float64) - row.latents["clear latent"]
    assert row.error("z_L") == pytest.approx((difference**2).mean())
    draw_features(found[:2], "a model", tmp_path / "features.png")
    pixels = np.asarray(Image.open(tmp_path / "features.png").convert("L"))
    for panel in np.array_split(pixels, 9, axis=1):
        assert (panel < 200).mean() > 0.01
    assert len(KINDS) == 3


@pytest.mark.parametrize(
    ("conditions", "shown"),
    [
        (("clear", "LQ-1", "LQ-2"), "LQ-2"),
        (("fog", "LQ-1"), "LQ-1"),
        (("clear", "snow", "fog"), "fog"),
        (("clear",), "clear"),
    ],
)
def test_the_strongest_level_is_shown(conditions: tuple[str, ...], shown: str) -> None:
    assert shown_condition(conditions) == shown
