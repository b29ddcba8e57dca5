"""Test every layout of datasets, and the errors for broken ones."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from pycocotools import mask as coco
from skimage.draw import disk

from glesam_evaluation.datasets import Sample, coco_segmentation, open_dataset
from glesam_evaluation.datasets.coco_segmentation import decode_segmentation
from glesam_evaluation.datasets.mask_files import read_masks
from glesam_evaluation.scenes import make_scene
from glesam_runtime.errors import InputError

HEIGHT, WIDTH = 24, 32
rng = np.random.default_rng(0)
PHOTO = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
FIRST = np.zeros((HEIGHT, WIDTH), np.bool_)
FIRST[2:9, 3:12] = True
SECOND = np.zeros((HEIGHT, WIDTH), np.bool_)
SECOND[12:20, 20:30] = True


def save(path: Path, pixels: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    Image.fromarray(pixels).save(path, **options)
    return path


def one_photo(folder: Path, image: str, *masks: str) -> Path:
    """Write a dataset of one image, whose mask files hold FIRST, then SECOND."""
    save(folder / image, PHOTO)
    for name, mask in zip(masks, (FIRST, SECOND), strict=False):
        save(folder / name, mask)
    return folder


# Folders


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("images/a.png", ["masks/a.png"]),
        ("images/a.png", ["masks/a_1.png", "masks/a_cat.png"]),
        ("images/a.png", ["masks/a/0.png", "masks/a/1.png"]),
        ("a.png", ["a_mask.png"]),
        ("a.png", ["a_mask_0.png", "a_mask_1.png"]),
        ("a.jpg", ["a.png"]),  # MSRA10K
        ("images/a.jpg", ["ground_truth_mask/a.png"]),  # ECSSD
        ("DUTS-TE-Image/a.jpg", ["DUTS-TE-Mask/a.png"]),
        ("im/a.jpg", ["gt/a.png"]),  # DIS5K
        ("images_train/a.jpg", ["masks_train/a.png"]),  # ThinObject5K
        ("Images/a.jpg", ["GT/a.png"]),
    ],
)
def test_layouts(tmp_path: Path, image: str, masks: list[str]) -> None:
    folder = one_photo(tmp_path, image, *masks)
    (folder / ".DS_Store").write_text("not an image")
    (folder / "readme.txt").write_text("neither")
    data = open_dataset(str(folder))
    assert len(data) == 1
    assert list(data.names) == ["a"]
    sample = data[0]
    assert sample.name == "a"
    if image.endswith(".png"):
        np.testing.assert_array_equal(sample.image, PHOTO)
    np.testing.assert_array_equal(sample.masks, [FIRST, SECOND][: len(masks)])
    assert sample.masks.dtype == np.bool_


def test_a_mask_goes_to_the_image_whose_name_it_extends_most(tmp_path: Path) -> None:
    one_photo(tmp_path, "images/a.png", "masks/a.png")
    one_photo(tmp_path, "images/a_1.png", "masks/a_1.png", "masks/a_1_2.png")
    data = open_dataset(str(tmp_path))
    assert [len(data[index].masks) for index in range(2)] == [1, 2]
    with pytest.raises(IndexError):
        data[2]
    assert [sample.name for sample in data] == ["a", "a_1"]


def test_of_several_datasets_one_is_named_by_its_image_folder(tmp_path: Path) -> None:
    for part in ("train", "test"):
        one_photo(tmp_path, f"images_{part}/{part}.jpg", f"masks_{part}/{part}.png")
    assert list(open_dataset(str(tmp_path / "images_test")).names) == ["test"]
    with pytest.raises(InputError, match="several datasets"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("turned", ["image", "mask", "both"])
def test_a_turned_photo_has_the_size_one_sees(tmp_path: Path, turned: str, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image, mask = tmp_path / f"images/a.{ending}", tmp_path / f"masks/a.{ending}"
    lossless = {"lossless": True} if ending == "webp" else {}
    upright = np.rot90(FIRST, -1)
    if turned == "mask":
        save(image, np.rot90(PHOTO, -1))
    else:
        save(image, PHOTO, exif=exif)
    if turned == "image":
        save(mask, upright, **lossless)
    else:
        save(mask, FIRST, exif=exif, **lossless)
    (found,) = open_dataset(str(tmp_path))[0].masks
    assert found.shape == (WIDTH, HEIGHT)
    assert (found != upright).sum() <= (8 if ending == "jpg" else 0)


def broken_size(folder: Path) -> None:
    save(one_photo(folder, "images/a.png") / "masks/a.png", FIRST.T)


def broken_sizes(folder: Path) -> None:
    broken_size(folder)
    save(one_photo(folder, "images/b.png") / "masks/b.png", FIRST.T)


def broken_lack(folder: Path) -> None:
    one_photo(folder, "images/ok.png", "masks/ok.png")
    for name in "abcd":
        save(folder / f"images/{name}.png", PHOTO)


def broken_twins(folder: Path) -> None:
    one_photo(folder, "images/a.png", "masks/a.png")
    save(folder / "images/a.jpg", PHOTO)


def broken_text(folder: Path) -> None:
    one_photo(folder, "images/a.png")
    (folder / "masks").mkdir()
    (folder / "masks/a.png").write_text("no image")


def broken_image(folder: Path) -> None:
    one_photo(folder, "images/b.png", "masks/a.png")
    (folder / "images/b.png").unlink()
    (folder / "images/a.png").write_text("no image")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n%%EndComments\nshowpage\n%%EOF\n"


def broken_eps_image(folder: Path) -> None:
    (one_photo(folder, "images/a.png", "masks/a.png") / "images/a.png").write_bytes(EPS)


def broken_eps_mask(folder: Path) -> None:
    (one_photo(folder, "images/a.png", "masks/a.png") / "masks/a.png").write_bytes(EPS)


def broken_nothing(folder: Path) -> None:
    (folder / "images").mkdir()
    (folder / "masks").mkdir()


@pytest.mark.parametrize(
    ("breaks", "hints"),
    [
        (lambda folder: None, ["no images", "images/ and masks/"]),
        (broken_nothing, ["no images"]),
        (lambda folder: save(folder / "a.png", PHOTO), ["a.png", "remove them or add masks"]),
        (broken_lack, ["a.png, b.png, c.png and 1 more", "remove them or add masks"]),
        (broken_size, ["masks/a.png", "24 x 32", "32 x 24"]),
        (broken_sizes, ["2 masks", "a.png, b.png", "resize them"]),
        (broken_twins, ["a.jpg", "same name"]),
        (broken_text, ["masks/a.png", "not an image"]),
        (broken_image, ["images/a.png", "not an image"]),
        (broken_eps_image, ["images/a.png", "not an image"]),
        (broken_eps_mask, ["masks/a.png", "not an image"]),
    ],
)
def test_broken_folders_are_refused_on_opening(
    tmp_path: Path, breaks: Callable[[Path], object], hints: list[str]
) -> None:
    breaks(tmp_path)
    with pytest.raises(InputError) as raised:
        open_dataset(str(tmp_path))
    for hint in hints:
        assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_empty_mask_is_told_when_it_is_read(tmp_path: Path) -> None:
    one_photo(tmp_path, "images/a.png", "masks/a_0.png")
    save(tmp_path / "masks/a_1.png", FIRST & SECOND)
    data = open_dataset(str(tmp_path))
    assert len(data[0].masks) == 1
    save(tmp_path / "masks/a_0.png", FIRST & SECOND)
    for read in (lambda: data[0], lambda: open_dataset(str(tmp_path))):
        with pytest.raises(InputError, match=r"a_0\.png: is empty"):
            read()


def test_images_with_black_masks_are_left_out_with_a_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in "abcde":
        one_photo(tmp_path, f"images/{name}.png", f"masks/{name}.png")
    for name, mode in (("b", "1"), ("c", "L"), ("d", "RGB")):
        Image.new(mode, (WIDTH, HEIGHT)).save(tmp_path / f"masks/{name}.png")
    data = open_dataset(str(tmp_path))
    assert list(data.names) == ["a", "e"]
    assert [len(sample.masks) for sample in data] == [1, 1]
    said = capsys.readouterr().err
    assert said.startswith("note: ")
    assert "3 of 5 images are left out" in said
    assert "b.png, c.png, d.png" in said
    assert said.count("\n") == 1


def test_a_mask_that_cannot_be_read_is_found_on_opening(tmp_path: Path) -> None:
    one_photo(tmp_path, "images/a.png", "masks/a.png")
    save(one_photo(tmp_path, "images/b.png") / "masks/b.png", PHOTO)  # a photograph
    path = tmp_path / "masks/b.png"
    path.write_bytes(path.read_bytes()[:-300])  # its header is whole
    with pytest.raises(InputError, match=r"b\.png: cannot be read as a mask"):
        open_dataset(str(tmp_path))


# Mask files


def soft_disk() -> tuple[np.ndarray, np.ndarray]:
    """Return a disk with soft edges, gray 0..255, and the mask of its pixels."""
    fine = np.zeros((8 * 48, 8 * 64))
    fine[disk((190, 250), 130)] = 255
    gray = fine.reshape(48, 8, 64, 8).mean(axis=(1, 3)).round().astype(np.uint8)
    return gray, gray > 127


def test_antialiased_and_jpeg_masks_are_one_object(tmp_path: Path) -> None:
    gray, truth = soft_disk()
    assert len(np.unique(gray)) > 20
    for path in (
        save(tmp_path / "gray.png", gray),
        save(tmp_path / "rgb.png", np.stack([gray] * 3, axis=-1)),
    ):
        np.testing.assert_array_equal(read_masks(path), truth[None])
    save(tmp_path / "a.jpg", gray, quality=60)
    (jpeg,) = read_masks(tmp_path / "a.jpg")
    assert (jpeg != truth).mean() < 0.01
    # A PNG that was a JPEG once.
    (again,) = read_masks(save(tmp_path / "b.png", np.asarray(Image.open(tmp_path / "a.jpg"))))
    np.testing.assert_array_equal(again, jpeg)


def resized(size: tuple[int, int], method: Image.Resampling, value: int) -> np.ndarray:
    """A mask of one value in a rectangle and a disk, resized by Pillow."""
    mask = np.zeros((60, 80), np.uint8)
    mask[5:25, 4:30] = value
    mask[disk((40, 55), 15)] = value
    return np.asarray(Image.fromarray(mask).resize(size, method))


@pytest.mark.parametrize("value", [100, 128, 200, 230, 255])
@pytest.mark.parametrize("size", [(33, 25), (100, 70), (251, 203)])
@pytest.mark.parametrize("method", list(Image.Resampling))
def test_a_resized_mask_of_any_value_is_one_object(
    tmp_path: Path, value: int, size: tuple[int, int], method: Image.Resampling
) -> None:
    (mask,) = read_masks(save(tmp_path / "a.png", resized(size, method, value)))
    white = resized(size, method, 255)  # Pillow's own picture of the same mask
    assert ((white > 127) != mask).mean() < 0.005


@pytest.mark.parametrize(("blur", "top"), [(2, 1.0), (6, 1.0), (15, 1.0), (25, 0.8)])
def test_a_probability_map_is_one_object(tmp_path: Path, blur: int, top: float) -> None:
    mask = np.zeros((120, 160), np.uint8)
    mask[20:90, 30:120] = 255
    soft = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(blur))) / 255 * top
    truth = soft > 0.5
    (read,) = read_masks(save(tmp_path / "8.png", np.rint(soft * 255).astype(np.uint8)))
    assert (read != truth).mean() < 0.01
    (read,) = read_masks(save(tmp_path / "f.tif", soft.astype(np.float32)))
    np.testing.assert_array_equal(read, soft.astype(np.float32) > 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_a_networks_probability_map_is_one_object(tmp_path: Path, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    rows, columns = np.mgrid[:90, :120]
    logits = (30 - np.hypot(rows - 45, columns - 50)) / numbers.uniform(1, 10)
    logits += numbers.normal(0, 0.3, logits.shape)
    chance = 1 / (1 + np.exp(-logits))
    (read,) = read_masks(save(tmp_path / "a.png", np.rint(chance * 255).astype(np.uint8)))
    np.testing.assert_array_equal(read, np.rint(chance * 255) > 127)


COLOURS = [(220, 30, 30), (0, 128, 0), (255, 255, 0), (90, 140, 255)]


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_coloured_disk_with_soft_edges_is_one_object(
    tmp_path: Path, colour: tuple[int, int, int], ending: str
) -> None:
    gray, truth = soft_disk()
    drawn = np.rint(gray[..., None] / 255 * np.asarray(colour)).astype(np.uint8)
    (read,) = read_masks(save(tmp_path / f"a.{ending}", drawn))
    # Lossy files halve the resolution of colours.
    assert (read != truth).mean() <= (0 if ending == "png" else 0.02)


@pytest.mark.parametrize("options", [{"quality": 60}, {"quality": 90}, {"lossless": True}])
@pytest.mark.parametrize("value", [128, 200, 255])
def test_webp_masks_are_one_object(tmp_path: Path, options: dict, value: int) -> None:
    gray, truth = soft_disk()
    for name, pixels in (("soft", gray), ("hard", truth * np.uint8(255))):
        scaled = np.rint(pixels / 255 * value).astype(np.uint8)
        (read,) = read_masks(save(tmp_path / f"{name}.webp", scaled, **options))
        assert (read != truth).mean() < 0.01


def test_lossless_webp_and_tiff_keep_instances(tmp_path: Path) -> None:
    labels = (FIRST * 3 + SECOND * 9).astype(np.uint8)
    for name, options in (("a.webp", {"lossless": True}), ("b.tif", {})):
        np.testing.assert_array_equal(
            read_masks(save(tmp_path / name, labels, **options)), [FIRST, SECOND]
        )


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("form", [np.uint8, np.int32, np.float32])
def test_255_beside_numbered_objects_is_ignored(tmp_path: Path, count: int, form: type) -> None:
    objects = [FIRST, SECOND][:count]
    labels = sum((k + 1) * mask.astype(np.uint8) for k, mask in enumerate(objects))
    labels[0] = 255
    path = save(tmp_path / "a.tif", labels.astype(form))
    np.testing.assert_array_equal(read_masks(path), objects)


def test_a_255th_object_is_one(tmp_path: Path) -> None:
    labels = np.repeat(np.repeat(np.arange(256).reshape(16, 16), 3, axis=0), 3, axis=1)
    masks = read_masks(save(tmp_path / "a.png", labels.astype(np.uint8)))
    np.testing.assert_array_equal(masks, labels[None] == np.arange(1, 256)[:, None, None])


@pytest.mark.parametrize("largest", [3, 12, 100, 240, 255])
def test_numbers_of_touching_objects_stay_numbers(tmp_path: Path, largest: int) -> None:
    """Superpixels: squares numbered row by row, from 0."""
    side = int(np.ceil(np.sqrt(largest + 1)))
    squares = np.minimum(np.arange(side * side), largest).reshape(side, side)
    labels = np.repeat(np.repeat(squares, 5, axis=0), 5, axis=1).astype(np.uint8)
    masks = read_masks(save(tmp_path / "a.png", labels))
    np.testing.assert_array_equal(masks, labels == np.arange(1, largest + 1)[:, None, None])


@pytest.mark.parametrize("seed", range(30))
def test_maps_of_many_small_objects_stay_maps(tmp_path: Path, seed: int) -> None:
    """Up to 253 disks of 1 to 7 pixels radius, which overlap, with any numbers."""
    numbers = np.random.default_rng(seed)
    count = int(numbers.integers(1, 254))
    labels = np.zeros((200, 260), np.uint8)
    for label in numbers.permutation(np.arange(1, count + 1)):
        center = numbers.integers(0, 200), numbers.integers(0, 260)
        labels[disk(center, numbers.uniform(1, 7), shape=labels.shape)] = label
    if seed % 3 == 0:
        labels *= np.uint8(255 // count)
    expected = labels == np.unique(labels)[1:, None, None]
    np.testing.assert_array_equal(read_masks(save(tmp_path / "a.png", labels)), expected)


def test_thin_objects_with_small_numbers_stay_objects(tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[5, :], labels[9, :], labels[12, :], labels[20:30] = 1, 2, 3, 4
    assert len(read_masks(save(tmp_path / "a.png", labels))) == 4


def test_a_soft_edge_beside_a_brighter_object_is_no_single_object(tmp_path: Path) -> None:
    gray, truth = soft_disk()
    labels = np.rint(gray * (150 / 255)).astype(np.uint8)
    labels[2:6, 2:8] = 250
    with pytest.raises(InputError, match="only along edges"):
        read_masks(save(tmp_path / "a.png", labels))
    hard = truth * np.uint8(150)
    hard[2:6, 2:8] = 250
    assert len(read_masks(save(tmp_path / "a.png", hard))) == 2


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    gray, _ = soft_disk()
    two = np.zeros((48, 140, 3), np.uint8)
    two[:, :64, 0] = gray
    two[:, 70:134, 1] = gray
    dim = np.rint(np.linspace(0, 90, 100))[None].repeat(20, axis=0).astype(np.uint8)
    for name, pixels, hint in (
        ("two.png", two, "only along edges"),
        ("dim.png", dim, "cannot be told"),
    ):
        with pytest.raises(InputError, match=hint) as raised:
            read_masks(save(tmp_path / name, pixels))
        assert name in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [1, 100, 128, 255])
def test_any_one_value_is_one_mask(tmp_path: Path, value: int) -> None:
    path = save(tmp_path / "a.png", FIRST.astype(np.uint8) * value)
    np.testing.assert_array_equal(read_masks(path), FIRST[None])


def test_one_bit_and_transparent_masks(tmp_path: Path) -> None:
    Image.fromarray(FIRST).save(tmp_path / "bit.png")
    assert Image.open(tmp_path / "bit.png").mode == "1"
    white = np.full((HEIGHT, WIDTH, 4), 255, np.uint8)
    white[..., 3] = FIRST * 255
    for path in (tmp_path / "bit.png", save(tmp_path / "alpha.png", white)):
        np.testing.assert_array_equal(read_masks(path), FIRST[None])


@pytest.mark.parametrize("values", [(1, 2), (7, 255), (100, 200), (128, 255), (3, 1000)])
def test_several_values_are_several_objects(tmp_path: Path, values: tuple[int, int]) -> None:
    dtype = np.uint16 if max(values) > 255 else np.uint8
    labels = (FIRST * values[0] + SECOND * values[1]).astype(dtype)
    np.testing.assert_array_equal(read_masks(save(tmp_path / "a.png", labels)), [FIRST, SECOND])


def test_colours_and_palettes_are_instance_maps(tmp_path: Path) -> None:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[FIRST], colours[SECOND] = (0, 0, 200), (200, 30, 0)
    expected = [FIRST, SECOND]
    np.testing.assert_array_equal(read_masks(save(tmp_path / "rgb.png", colours)), expected)

    palette = Image.fromarray((FIRST * 1 + SECOND * 2).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0] + [9, 8, 7] * 253)
    palette.save(tmp_path / "palette.png")
    np.testing.assert_array_equal(read_masks(tmp_path / "palette.png"), expected)
    pixels = np.asarray(palette).copy()
    pixels[0] = 255  # VOC's border
    voc = Image.fromarray(pixels, mode="L").convert("P")
    voc.putpalette(palette.getpalette())
    voc.putdata(pixels.ravel().tolist())
    voc.save(tmp_path / "voc.png")
    np.testing.assert_array_equal(read_masks(tmp_path / "voc.png"), expected)


def test_a_postscript_mask_is_no_mask(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(InputError, match="not an image in a known format"):
        read_masks(tmp_path / "a.png")


def test_a_photograph_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="different values"):
        read_masks(save(tmp_path / "a.png", noise))


# COCO and LVIS

SQUARE = [3.0, 2.0, 12.0, 2.0, 12.0, 9.0, 3.0, 9.0]
TRIANGLE = [20.5, 12.0, 30.0, 19.5, 18.25, 20.0]


def coded(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask, np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def runs(mask: np.ndarray) -> dict:
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]), [mask.size]])
    return {"size": list(mask.shape), "counts": np.diff(edges).tolist()}


def annotate(path: Path, *segmentations: object, **image: object) -> Path:
    """Write the JSON of one image; each annotation is a segmentation or a whole dict."""
    listed = {"id": 7, "height": HEIGHT, "width": WIDTH, "file_name": "a.png"} | image
    objects = [
        one if isinstance(one, dict) and "image_id" in one else {"image_id": 7, "segmentation": one}
        for one in segmentations
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": [listed], "annotations": objects, "categories": []}))
    return path


def crowd(mask: np.ndarray) -> dict:
    return {"image_id": 7, "segmentation": runs(mask), "iscrowd": 1}


def test_polygons_and_runs_of_both_kinds(tmp_path: Path) -> None:
    save(tmp_path / "a.png", PHOTO)
    path = annotate(
        tmp_path / "instances.json", [SQUARE, TRIANGLE], runs(FIRST), coded(SECOND), crowd(FIRST)
    )
    (sample,) = list(open_dataset(str(path)))
    assert sample.name == "a.png"
    np.testing.assert_array_equal(sample.image, PHOTO)
    drawn = coco.decode(coco.merge(coco.frPyObjects([SQUARE, TRIANGLE], HEIGHT, WIDTH)))
    np.testing.assert_array_equal(sample.masks, [drawn == 1, FIRST, SECOND])


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), height=st.integers(1, 15), width=st.integers(1, 15))
def test_runs_are_read_as_coco_reads_them(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    uncompressed = coco.frPyObjects(runs(mask), height, width)
    np.testing.assert_array_equal(coco.decode(uncompressed), mask)
    for form in (runs(mask), coded(mask)):
        read = decode_segmentation(json.dumps(form).encode(), height, width, "here")
        np.testing.assert_array_equal(read, mask)


@pytest.mark.parametrize(
    ("image", "where"),
    [
        ("a.png", {}),
        ("images/a.png", {}),
        ("images/val2017/a.png", {}),
        ("val2017/a.png", {}),
        ("../images/a.png", {}),
        ("../val2017/a.png", {}),
        ("../train2017/a.png", {"file_name": None, "coco_url": "http://x/train2017/a.png"}),
        ("../images/train2017/a.png", {"file_name": None, "coco_url": "http://x/train2017/a.png"}),
        ("../images/sub/a.png", {"file_name": "sub/a.png"}),
    ],
)
def test_images_are_found_near_the_file(tmp_path: Path, image: str, where: dict) -> None:
    path = annotate(tmp_path / "annotations/instances_val2017.json", coded(FIRST), **where)
    save(path.parent / image, PHOTO)
    np.testing.assert_array_equal(open_dataset(str(path))[0].masks, FIRST[None])


@pytest.mark.parametrize(
    "name",
    [
        "./a.png",
        "././a.png",
        ".\\a.png",
        "sub/../a.png",
        "/elsewhere/data/a.png",
        "C:\\data\\a.png",
        "C:/data/a.png",
        "ABSOLUTE",
    ],
)
def test_file_names_of_any_system_are_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "images/sub").mkdir(parents=True)
    image = save(tmp_path / "images/a.png", PHOTO)
    name = str(image) if name == "ABSOLUTE" else name
    data = open_dataset(str(annotate(tmp_path / "annotations/x.json", GOOD, file_name=name)))
    np.testing.assert_array_equal(data[0].image, PHOTO)
    assert list(data.names) == [name]


def test_backslashes_are_tried_as_slashes(tmp_path: Path) -> None:
    path = annotate(tmp_path / "x.json", GOOD, file_name="sub\\deep\\a.png")
    save(tmp_path / "images/sub/deep/a.png", PHOTO)
    assert len(open_dataset(str(path))) == 1
    save(tmp_path / "sub\\deep\\a.png", PHOTO[:-1])  # the very name goes first
    with pytest.raises(InputError, match="32 x 23 pixels"):
        open_dataset(str(path))


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\0.png", ".", "/"])
def test_impossible_file_names_are_missing_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="--images"):
        open_dataset(str(annotate(tmp_path / "x.json", GOOD, file_name=name)))


@pytest.mark.parametrize(
    ("image", "annotation"),
    [
        ({}, {"iscrowd": None}),
        ({}, {"iscrowd": 0.0}),
        ({}, {"area": 0}),
        ({}, {"area": None}),
        ({"height": float(HEIGHT), "width": float(WIDTH)}, {}),
        ({"id": "7"}, {"image_id": "7"}),
        ({"id": "7"}, {"image_id": 7}),
        ({"id": 7.0}, {"image_id": "7"}),
        ({"id": "coins-1"}, {"image_id": "coins-1"}),
    ],
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_what_other_tools_write_is_read(
    tmp_path: Path, image: dict, annotation: dict, bom: bytes
) -> None:
    save(tmp_path / "a.png", PHOTO)
    one = {"image_id": 7, "segmentation": [SQUARE]} | annotation
    path = annotate(tmp_path / "x.json", one, **image)
    path.write_bytes(bom + path.read_bytes())
    (sample,) = list(open_dataset(str(path)))
    np.testing.assert_array_equal(sample.masks, [drawn_by_coco([SQUARE], HEIGHT, WIDTH)])


def test_objects_and_images_without_a_mask_are_left_out_with_a_count(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    for name in names:
        save(tmp_path / name, PHOTO)
    images = [
        {"id": number, "height": HEIGHT, "width": WIDTH, "file_name": name}
        for number, name in enumerate(names)
    ]
    objects = [(0, GOOD), (0, []), (0, None), (1, [[1, 2, 3, 4]]), (2, runs(FIRST & SECOND))]
    annotations = [{"image_id": number, "segmentation": one} for number, one in objects]
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    said: list[str] = []
    data = open_dataset(str(path), warn=said.append)
    assert list(data.names) == ["a.png"]
    np.testing.assert_array_equal(data[0].masks, [FIRST])
    assert len(said) == 2
    assert "3 annotations without a mask are left out" in said[0]
    assert "2 of 3 images are left out" in said[1]
    assert "b.png, c.png" in said[1]


def test_images_are_found_where_the_user_says(tmp_path: Path) -> None:
    path = annotate(tmp_path / "a.json", coded(FIRST), coco_url="http://x/train2017/a.png")
    for folder in (tmp_path / "one", tmp_path / "two" / "train2017"):
        save(folder / "a.png", PHOTO)
    assert len(open_dataset(str(path), tmp_path / "one")) == 1
    assert len(open_dataset(str(path), tmp_path / "two")) == 1


GOOD = coded(FIRST)
NO_IMAGE = {"image_id": 8, "segmentation": GOOD}


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        ("", "not a COCO"),
        ("[" * 5000, "not a COCO"),
        ("{}", "not a COCO"),
        ('{"images": [{"id": "x"}], "annotations": []}', "not a COCO"),
        ('{"images": [], "annotations": []}', "no image in it has an object"),
        ([NO_IMAGE], "no image in it has an object"),
        ([crowd(FIRST)], "no image in it has an object"),
        ([{"image_id": 7, "segmentation": [SQUARE], "area": 0.9}], "has an object"),
        ([{"image_id": 7, "bbox": [1, 2, 3, 4]}], "a.png: no mask"),
        (([GOOD], {"width": 32.5}), "a.png has a size of 32.5 x 24"),
        ([{"image_id": 7}], "has an object"),
        (([GOOD], {"file_name": "b.png"}), "b.png; give their folder with --images"),
        (([GOOD], {"file_name": None}), "neither file_name nor coco_url"),
        (([GOOD], {"width": WIDTH + 1}), "a.png: has 32 x 24 pixels"),
        (([GOOD], {"height": 10**12}), "a.png: has 32 x 24 pixels"),
        (([GOOD], {"file_name": "text.png"}), "not an image"),
    ],
)
def test_broken_annotations_are_refused_on_opening(
    tmp_path: Path, content: object, hint: str
) -> None:
    save(tmp_path / "a.png", PHOTO)
    (tmp_path / "text.png").write_text("no image")
    path = tmp_path / "instances.json"
    if isinstance(content, str):
        path.write_text(content)
    else:
        objects, image = content if isinstance(content, tuple) else (content, {})
        annotate(path, *objects, **image)
    with pytest.raises(InputError) as raised:
        open_dataset(str(path))
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("segmentation", "hint"),
    [
        ([[1, 2, 3, 4]], "covers no pixel"),
        ([], "covers no pixel"),
        (None, "covers no pixel"),
        (runs(FIRST & SECOND), "covers no pixel"),
        ([[-20.0, 1, -9, 1, -9, 8]], "covers no pixel"),
        ([[1, 2], [9, 2], [9, 8]], "corners in pairs"),
        ([[[1, 2], [9, 2], [9, 8]]], "cannot be read"),
        ([1, 2, 9, 2, 9, 8], "cannot be read"),
        ({"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, "but the image has"),
        ({"size": [HEIGHT, WIDTH], "counts": [3, 4]}, "do not fill"),
        ({"size": [HEIGHT, WIDTH], "counts": [-5, HEIGHT * WIDTH + 5]}, "do not fill"),
        ({"size": [HEIGHT, WIDTH], "counts": "\x7f"}, "cannot be read"),
        ({"size": [HEIGHT, WIDTH], "counts": "00"}, "cannot be read"),
        ("words", "cannot be read"),
        ([["x"] * 6], "cannot be read"),
    ],
)
def test_broken_segmentations_name_their_image(
    tmp_path: Path, segmentation: object, hint: str
) -> None:
    save(tmp_path / "a.png", PHOTO)
    path = annotate(tmp_path / "x.json", segmentation)
    with pytest.raises(InputError) as raised:
        open_dataset(str(path))
    assert hint in str(raised.value)
    assert "a.png" in str(raised.value)


def test_corners_far_outside_cost_nothing() -> None:
    for side in (1e15, 1e300):
        far = json.dumps([[-side, -side, side, -side, side, side, -side, side]]).encode()
        assert decode_segmentation(far, HEIGHT, WIDTH, "here").all()


def drawn_by_coco(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    return coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))) == 1


def test_a_polygon_past_the_border_keeps_its_area() -> None:
    diamond = [60.0, -60, 190, 50, 60, 160, -70, 50]
    strip = [-40.0, 300, -38, 300, 160, -300, 158, -300]
    for polygon in (diamond, strip, [-5000.0, 20, 5000, 30, 5000, 33, -5000, 23]):
        read = decode_segmentation(json.dumps([polygon]).encode(), 100, 120, "here")
        np.testing.assert_array_equal(read, drawn_by_coco([polygon], 100, 120))
        assert read.any()
    assert drawn_by_coco([diamond], 100, 120).sum() == 12_000


@st.composite
def objects(draw: st.DrawFn, reach: int) -> tuple[int, int, list[list[float]]]:
    """An image size and one to three polygons, which reach so far beyond the border."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    numbers = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    polygons = [
        (numbers.uniform(-reach, np.add((width, height), reach), (corners, 2))).ravel().tolist()
        for corners in draw(st.lists(st.integers(3, 8), min_size=1, max_size=3))
    ]
    return height, width, polygons


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([0, 3, 60, 900]).flatmap(objects))
def test_polygons_are_drawn_as_coco_draws_them(drawn: tuple) -> None:
    height, width, polygons = drawn
    read = decode_segmentation(json.dumps(polygons).encode(), height, width, "here")
    np.testing.assert_array_equal(read, drawn_by_coco(polygons, height, width))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([60, 900, 20_000]).flatmap(objects))
def test_long_outlines_are_cut_as_areas(drawn: tuple) -> None:
    """Cutting moves an outline by its rounding to a fifth of a pixel, and by no more."""
    height, width, polygons = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coco_segmentation, "_LONGEST_OUTLINE", 0)
        read = decode_segmentation(json.dumps(polygons).encode(), height, width, "here")
    expected = drawn_by_coco(polygons, height, width)
    lines = [np.reshape(polygon, (-1, 2)) for polygon in polygons]
    for row, column in np.argwhere(read != expected):
        middle = np.array([column + 0.5, row + 0.5])
        assert min(_distance(middle, line) for line in lines) < 1.2


def _distance(point: np.ndarray, corners: np.ndarray) -> float:
    """The distance of a point from the outline of a polygon."""
    starts, ends = corners, np.roll(corners, -1, axis=0)
    along = ends - starts
    share = ((point - starts) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12)
    nearest = starts + np.clip(share, 0, 1)[:, None] * along
    return float(np.linalg.norm(nearest - point, axis=1).min())


def test_two_images_of_one_name_and_a_second_file_of_another_size(tmp_path: Path) -> None:
    image = {"id": 7, "height": HEIGHT, "width": WIDTH, "file_name": "a.png"}
    save(tmp_path / "a.png", PHOTO)
    path = tmp_path / "x.json"
    twice = {
        "images": [image, image | {"id": 8}],
        "annotations": [{"image_id": 7, "segmentation": GOOD}, NO_IMAGE],
    }
    path.write_text(json.dumps(twice))
    with pytest.raises(InputError, match="two images have the name"):
        open_dataset(str(path))
    data = open_dataset(str(annotate(path, GOOD)))
    save(tmp_path / "a.png", PHOTO[:-1])
    with pytest.raises(InputError, match="any more"):
        data[0]


def test_without_pycocotools_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    assert decode_segmentation(json.dumps(GOOD).encode(), HEIGHT, WIDTH, "here").any()
    with pytest.raises(InputError, match=r"glesam-deploy\[training\]"):
        decode_segmentation(json.dumps([SQUARE]).encode(), HEIGHT, WIDTH, "here")


# Scenes, and properties of all datasets


def test_scenes_are_their_seeds() -> None:
    data = open_dataset("scenes:3@2")
    assert list(data.names) == ["scene-2", "scene-3", "scene-4"]
    scene = make_scene(3)
    np.testing.assert_array_equal(data[1].image, scene.image)
    shares = scene.masks.mean(axis=(1, 2))
    np.testing.assert_array_equal(data[1].masks, scene.masks[shares >= 0.004])
    assert 0 < len(data[1].masks) < len(shares)
    assert open_dataset("scenes:1")[0].name == "scene-0"
    assert len(list(data)) == 3


def same(one: Sample, other: Sample) -> bool:
    return bool(
        one.name == other.name
        and (one.image == other.image).all()
        and (one.masks == other.masks).all()
    )


def test_all_can_be_pickled(tmp_path: Path) -> None:
    folder = one_photo(tmp_path, "images/a.png", "masks/a.png")
    path = annotate(tmp_path / "images/x.json", [SQUARE])
    for spec in ("scenes:2", str(folder), str(path)):
        data = open_dataset(spec)
        assert same(pickle.loads(pickle.dumps(data))[0], data[0])  # noqa: S301


@pytest.mark.parametrize(
    ("spec", "images", "hint"),
    [
        ("scenes", False, "scenes:N"),
        ("scenes:0", False, "at least 1"),
        ("scenes:-1", False, "scenes:N"),
        ("scenes:5@x", False, "scenes:N"),
        ("scenes:5", True, "--images"),
        ("", False, "no images"),
        ("nowhere", False, "no such folder or file"),
        ("folder", True, "--images"),
        ("text.txt", False, "is no dataset"),
        ("x.json", "missing", "no such folder"),
    ],
)
def test_bad_specs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, images: object, hint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text.txt").write_text("text")
    annotate(Path("x.json"), GOOD)
    with pytest.raises(InputError) as raised:
        open_dataset(spec, Path("missing") if images == "missing" else tmp_path if images else None)
    assert hint in str(raised.value)
