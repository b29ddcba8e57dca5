"""Test published datasets by name, LQSeg's layout, and the bitmasks of BDD-100K."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_evaluation.datasets import NAMED, open_dataset
from glesam_evaluation.datasets.bitmasks import count_bitmasks, read_bitmasks
from glesam_runtime.errors import InputError

SIZE = (24, 40)


def disk(row: int = 12, column: int = 15, radius: int = 6) -> np.ndarray:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def photo(path: Path, size: tuple[int, int] = SIZE) -> Path:
    rng = np.random.default_rng(len(path.name))
    return save(path, rng.integers(0, 256, (*size, 3), dtype=np.uint8))


def mask(path: Path) -> Path:
    return save(path, (255 * disk()).astype(np.uint8))


def bitmask(*objects: tuple[np.ndarray, int, int, int]) -> np.ndarray:
    """Draw a bitmask as the format says: R category, G flags, B and A the object's number."""
    pixels = np.zeros((*SIZE, 4), np.uint8)
    for where, category, flags, number in objects:
        pixels[where] = (category, flags, number // 256, number % 256)
    return pixels


def coco(path: Path, *names: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for n, name in enumerate(names)
    ]
    polygon = [5.0, 5.0, 25.0, 5.0, 25.0, 18.0, 5.0, 18.0]
    annotations = [{"image_id": n, "segmentation": [polygon]} for n in range(len(names))]
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def make(name: str, root: Path, stems: tuple[str, ...] = ("a", "b")) -> None:
    """Write the default split of a dataset as the page about it says, with two images."""
    split = next(iter(NAMED[name].splits.values()))
    for stem in stems:
        image = root / split.images / f"{stem}.jpg"
        if name == "lis":
            image = image.with_suffix(".JPG")
            photo(image)
        elif name == "bdd100k":
            photo(image)
            save(root / split.masks / f"{stem}.png", bitmask((disk(), 3, 0, 7)))
        else:
            photo(image)
            mask(root / split.masks / f"{stem}.png")
    if name == "lis":
        coco(root / split.masks, *(f"{stem}.JPG" for stem in stems))


@pytest.fixture
def of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every dataset be complete with two images."""
    for name, named in NAMED.items():
        splits = {key: replace(split, count=2) for key, split in named.splits.items()}
        monkeypatch.setitem(NAMED, name, replace(named, splits=splits))  # type: ignore[arg-type]


@pytest.mark.usefixtures("of_two")
@pytest.mark.parametrize("name", NAMED)
def test_every_dataset_opens_by_its_name(tmp_path: Path, name: str) -> None:
    make(name, tmp_path)
    data = open_dataset(f"{name.upper()}:{tmp_path}")
    assert len(data) == 2
    sample = data[0]
    assert sample.image.shape == (*SIZE, 3)
    assert sample.masks.shape == (1, *SIZE)
    if name != "lis":
        np.testing.assert_array_equal(sample.masks[0], disk())


@pytest.mark.usefixtures("of_two")
def test_a_split_opens_by_its_name(tmp_path: Path) -> None:
    photo(tmp_path / "DIS-TE3/im/x.jpg")
    mask(tmp_path / "DIS-TE3/gt/x.png")
    photo(tmp_path / "DIS-TE3/im/y.jpg")
    mask(tmp_path / "DIS-TE3/gt/y.png")
    assert list(open_dataset(f"dis5k/dis-te3:{tmp_path}").names) == ["x", "y"]


@pytest.mark.parametrize("name", NAMED)
def test_half_a_download_is_refused_and_says_what_is_missing(tmp_path: Path, name: str) -> None:
    split = next(iter(NAMED[name].splits.values()))
    with pytest.raises(InputError, match="no such folder"):
        open_dataset(f"{name}:{tmp_path / 'none'}")
    if split.images != ".":
        photo(tmp_path / split.images / "a.jpg")
        with pytest.raises(InputError, match="is no complete") as error:
            open_dataset(f"{name}:{tmp_path}")
        assert split.masks in str(error.value)
        assert NAMED[name].source in str(error.value)
        (tmp_path / split.images / "a.jpg").unlink()
    make(name, tmp_path)
    if name == "lis":
        (tmp_path / split.images / "b.JPG").unlink()
        with pytest.raises(InputError, match="1 of its 2 images are not in"):
            open_dataset(f"{name}:{tmp_path}")
    if split.count is None:
        return
    with pytest.raises(InputError, match=f"has 2 of the {split.count:,} images") as error:
        open_dataset(f"{name}:{tmp_path}")
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("of_two")
def test_an_image_without_its_mask_is_refused(tmp_path: Path) -> None:
    make("coift", tmp_path)
    (tmp_path / "masks/b.png").unlink()
    with pytest.raises(InputError, match=r"no mask in .* for b.jpg"):
        open_dataset(f"coift:{tmp_path}")


def test_a_bitmask_numbers_objects_by_blue_and_alpha(tmp_path: Path) -> None:
    far, near = disk(12, 33, 4), disk(6, 6, 4)
    pixels = bitmask(
        (disk(), 3, 0, 5),  # alpha 5: nearly transparent
        (far, 3, 8 | 4, 256 + 5),  # truncated and occluded, and the same alpha
        (near, 1, 2, 9),  # a crowd
    )
    pixels[20:, :5] = (2, 1, 0, 11)  # ignored
    path = save(tmp_path / "a.png", pixels)
    found = read_bitmasks(path)
    assert count_bitmasks(path) == len(found) == 2
    np.testing.assert_array_equal(found[0], disk() & ~near & ~far)
    np.testing.assert_array_equal(found[1], far)


@pytest.mark.usefixtures("of_two")
def test_bitmasks_without_an_object_are_told(tmp_path: Path) -> None:
    notes: list[str] = []
    make("bdd100k", tmp_path)
    masks = tmp_path / "labels/ins_seg/bitmasks/val"
    save(masks / "b.png", bitmask((disk(), 3, 2, 5)))
    data = open_dataset(f"bdd100k:{tmp_path}", warn=notes.append)
    assert list(data.names) == ["a"]
    assert "1 of 2 images are left out" in notes[0]
    save(masks / "a.png", bitmask())
    with pytest.raises(InputError, match=r"a.png: is empty"):
        open_dataset(f"bdd100k:{tmp_path}")
    save(masks / "a.png", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(InputError, match="no bitmask of BDD-100K"):
        open_dataset(f"bdd100k:{tmp_path}")


def test_a_bitmask_in_another_folder_names_the_way_to_read_it(tmp_path: Path) -> None:
    photo(tmp_path / "images/a.jpg")
    save(tmp_path / "masks/a.png", bitmask((disk(), 3, 0, 5)))
    with pytest.raises(InputError, match="bdd100k:FOLDER"):
        open_dataset(str(tmp_path))


def test_lr_beside_gt_is_stretched_to_the_masks(tmp_path: Path) -> None:
    """512 x 512 images of LQSeg have masks of the clear image's size."""
    notes: list[str] = []
    photo(tmp_path / "lr/a.png", (512, 512))
    mask(tmp_path / "gt/a.png")
    data = open_dataset(str(tmp_path), warn=notes.append)
    sample = data[0]
    assert notes == [
        f"{tmp_path}: images of 512 x 512 pixels are stretched to the size of their masks"
    ]
    np.testing.assert_array_equal(sample.masks[0], disk())
    original = Image.open(tmp_path / "lr/a.png")
    expected = original.resize((SIZE[1], SIZE[0]), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(sample.image, np.asarray(expected))


def test_lr_of_the_masks_size_stays_as_it_is(tmp_path: Path) -> None:
    notes: list[str] = []
    photo(tmp_path / "lr/a.png")
    mask(tmp_path / "gt/a.png")
    sample = open_dataset(str(tmp_path), warn=notes.append)[0]
    np.testing.assert_array_equal(sample.image, np.asarray(Image.open(tmp_path / "lr/a.png")))
    assert not notes


def one_of_another_size(root: Path) -> None:
    photo(root / "lr/a.png", (512, 512))
    photo(root / "lr/b.png", (100, 100))
    mask(root / "gt/a.png")
    mask(root / "gt/b.png")


def two_masks_of_two_sizes(root: Path) -> None:
    photo(root / "lr/a.png", (512, 512))
    mask(root / "gt/a_0.png")
    save(root / "gt/a_1.png", np.full((9, 9), 255, np.uint8))


def another_size(root: Path) -> None:
    photo(root / "lr/a.png", (256, 256))
    mask(root / "gt/a.png")


@pytest.mark.parametrize("broken", [one_of_another_size, two_masks_of_two_sizes, another_size])
def test_sizes_of_neither_layout_are_refused(
    tmp_path: Path, broken: Callable[[Path], None]
) -> None:
    broken(tmp_path)
    with pytest.raises(InputError, match=r"another size than their image|the mask has") as error:
        open_dataset(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("dis5k/DIS-TE9:x", "splits DIS-VD, DIS-TR, DIS-TE1"),
        ("camo:x", "NAME:FOLDER for a published dataset [(]ecssd, dis5k"),
    ],
)
def test_unknown_names_are_refused(spec: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint) as error:
        open_dataset(spec)
    assert "\n" not in str(error.value)
