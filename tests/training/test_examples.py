"""Examples depend on their number alone; prompts lie where they belong."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from glesam_evaluation.datasets import Sample, open_dataset
from glesam_export.checkpoints.random import RandomCheckpoint
from glesam_export.presets import sam_preset, unet_preset
from glesam_runtime.errors import InputError
from glesam_training.examples import (
    CORRECTED,
    DRAWN,
    ExampleOptions,
    Examples,
    draw_prompts,
    with_prompts,
)
from glesam_training.latents import store_latents

NANO = sam_preset("nano")


class OneSquare:
    """A wide picture with one square in it."""

    names = ("square",)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        masks = np.zeros((1, 100, 200), np.bool_)
        masks[0, 20:60, 100:180] = True
        return Sample("square", np.full((100, 200, 3), 128, np.uint8), masks)


def examples(count: int = 12, **options: object) -> Examples:
    return Examples(open_dataset("scenes:4"), NANO, count, ExampleOptions(**options))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_an_example_is_its_number() -> None:
    first, again = examples(), pickle.loads(pickle.dumps(examples()))  # noqa: S301
    assert all(same(first[i], again[i]) for i in (11, 0, 5))
    assert not same(first[0], first[4]), "another epoch, another example"
    assert not same(first[0], examples(seed=1)[0])


def test_trainings_of_several_seeds_can_share_low_versions() -> None:
    one, other = examples(seed=0, low_seed=5, variants=2), examples(seed=1, low_seed=5, variants=2)
    sample = one.dataset[2]
    lows = [made.inputs(sample, 2, 1)["low"] for made in (one, other, examples(seed=5, variants=2))]
    assert np.array_equal(lows[0], lows[1])
    assert np.array_equal(lows[0], lows[2])
    assert not np.array_equal(lows[0], examples(seed=0).inputs(sample, 2, 1)["low"])
    assert not same(one[0], other[0]), "another seed draws other pictures, masks and prompts"


def test_a_batch_can_be_pinned() -> None:
    """Each tensor has its own memory: a view with repeated rows cannot be pinned for a GPU."""
    made = examples()
    for first in range(3):
        for name, tensor in with_prompts([made[first], made[first + 1]]).items():
            assert tensor.is_contiguous(), name


def test_an_epoch_has_every_picture() -> None:
    drawn = [examples()[i]["clear"] for i in range(4)]
    assert len({image.numpy().tobytes() for image in drawn}) == 4


def test_levels_come_equally_often() -> None:
    made = examples(count=12, levels=(0, 1, 2))
    levels = [made.level(index, epoch) for epoch in range(3) for index in range(4)]
    assert sorted(levels) == [0] * 4 + [1] * 4 + [2] * 4
    clear = examples(levels=(0,))[0]
    assert torch.equal(clear["clear"], clear["low"])
    low = examples(levels=(3,))[0]
    assert not torch.equal(low["clear"], low["low"])


def test_a_recipe_decides_how_images_are_degraded() -> None:
    paper, released, again, drawn = (
        examples(levels=(level,), recipe=recipe)[0]["low"]
        for level, recipe in ((3, "paper"), (3, "released"), (3, "released"), (DRAWN, "released"))
    )
    assert not torch.equal(paper, released)
    assert torch.equal(released, again)
    assert drawn.shape == released.shape


def test_variants_come_again() -> None:
    repeated = examples(count=100, variants=2)
    assert {k for k in range(2, 20) if k % 2 == 0} == {
        epoch
        for epoch in range(2, 20)
        if np.array_equal(
            repeated.inputs(repeated.dataset[0], 0, epoch % 2)["low"],
            repeated.inputs(repeated.dataset[0], 0, 0)["low"],
        )
    }


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_prompts_lie_where_they_should(number: int) -> None:
    made = Examples(OneSquare(), NANO, 20_000, ExampleOptions(levels=(0,), masks=2))[number]
    # Where the square lies after the longest side of 200 pixels became 256.
    x0, y0, x1, y1 = (1.28 * v for v in (100, 20, 180, 60))
    inside, outside, boxes = (made[key].numpy() for key in ("points", "outside", "boxes"))
    within = lambda p: (p[..., 0] >= x0) & (p[..., 0] < x1) & (p[..., 1] >= y0) & (p[..., 1] < y1)  # noqa: E731
    assert within(inside).all()
    assert not within(outside).any()
    assert (
        np.abs(boxes - [x0, y0, x1, y1]) <= 0.2 * 1.28 * np.array([80, 40, 80, 40]) + 1e-3
    ).all()
    assert made["target"].shape == (2, 64, 64)
    for target in made["target"]:
        assert float(target.sum()) == pytest.approx(80 * 40 * 1.28**2 / 16, rel=0.02)
    assert float(made["target"][:, 33:].sum()) == 0, "the padding below a wide picture"


def test_background_points_can_be_far() -> None:
    """Far background points change nothing else that is drawn."""
    near, far = (
        Examples(OneSquare(), NANO, 40, ExampleOptions(levels=(0,), masks=1, far=share))
        for share in (0.0, 0.5)
    )
    strays = points = 0
    for number in range(40):
        x, y = far[number]["outside"].numpy().reshape(-1, 2).T / 1.28
        assert not ((x >= 100) & (x < 180) & (y >= 20) & (y < 60)).any()
        # Points within half the square's size of its sides count as near.
        strays += int((x < 59).sum() + (y >= 82).sum() - ((x < 59) & (y >= 82)).sum())
        points += len(x)
        assert torch.equal(near[number]["points"], far[number]["points"])
        assert float(near[number]["outside"][..., 0].min()) >= 59 * 1.28
    # Half of the points lie anywhere, and 52 % of the background is farther away.
    assert 0.19 < strays / points < 0.33


@given(st.integers(0, 1000))
def test_a_batch_has_one_make_up(seed: int) -> None:
    batch = {
        "points": torch.rand(2, 3, 10, 2),
        "outside": torch.rand(2, 3, 10, 2),
        "boxes": torch.rand(2, 3, 4),
    }
    coords, labels = draw_prompts(batch, np.random.default_rng(seed))
    assert coords.shape[:2] == (2, 3)
    assert labels.shape == coords.shape[:3]
    row = labels[0, 0].tolist()
    assert (labels == labels[0, 0]).all()
    assert row == [2, 3] or (1 <= row.count(1) <= 6 and row.count(0) <= 3 and row[-1] == -1)
    _, labels = draw_prompts(batch, np.random.default_rng(seed), CORRECTED)
    row = labels[0, 0].tolist()
    assert 1 <= row.count(1) <= 6
    assert 1 <= row.count(0) <= 3
    assert row[-1] == -1


def test_stored_latents_are_the_encoders(tmp_path: Path) -> None:
    encoder = RandomCheckpoint(0, NANO, unet_preset("nano"), 1.0, 1).encoder()
    plain = examples(variants=2)
    seen: list[tuple[int, int]] = []
    stored = store_latents(tmp_path, encoder, plain, 0, lambda *done: seen.append(done))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for number in (0, 6, 11):
        pixels, kept = plain[number], stored[number]
        assert "clear" not in kept
        for name, key in (("z_h", "clear"), ("z_l", "low")):
            expected = encoder(pixels[key][None])[0]
            torch.testing.assert_close(kept[name], expected, rtol=2e-3, atol=2e-3)
        assert torch.equal(pixels["points"], kept["points"])
    many = stored.latents(np.array([3, 0]), np.array([1, 0]))
    for place, (index, variant) in enumerate(((3, 1), (0, 0))):
        for several, one in zip(many, stored.latents(index, variant), strict=True):
            assert np.array_equal(several[place], one)
    (file,) = tmp_path.glob("latents-*.npy")
    stamp = file.stat().st_mtime_ns
    store_latents(tmp_path, encoder, plain, 0)
    assert file.stat().st_mtime_ns == stamp, "found, not made again"
    other = RandomCheckpoint(1, NANO, unet_preset("nano"), 1.0, 1).encoder()
    store_latents(tmp_path, other, plain, 0)
    assert len(list(tmp_path.glob("latents-*.npy"))) == 2


def test_latents_of_endless_variants_cannot_be_stored(tmp_path: Path) -> None:
    encoder = RandomCheckpoint(0, NANO, unet_preset("nano"), 1.0, 1).encoder()
    with pytest.raises(InputError, match="fixed number"):
        store_latents(tmp_path, encoder, examples(), 0)


def test_collating_draws_from_the_first_number() -> None:
    made = examples()
    first = with_prompts([made[2], made[3]])
    assert same(first, with_prompts([made[2], made[3]]))
    assert first["clear"].shape == (2, 3, 256, 256)


def test_a_gray_picture_is_taken(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60), 90, np.uint8)).save(tmp_path / "a.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[5:20, 5:30] = 255
    Image.fromarray(mask).save(tmp_path / "a_mask.png")
    data = open_dataset(str(tmp_path))
    assert Examples(data, NANO, 4, ExampleOptions())[3]["low"].shape == (3, 256, 256)
