"""Images are read as a viewer shows them, and prepared as segment_anything prepares them."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, features
from segment_anything.utils.transforms import ResizeLongestSide

from glesam_runtime import InputError
from glesam_runtime.image import preprocess, resized_size
from glesam_runtime.image_file import (
    open_picture,
    pixels_of,
    read_image,
    read_image_with_note,
    upright_size,
)
from glesam_runtime.limits import MEGAPIXELS
from glesam_runtime.manifest import Preprocessing

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def rules(size: int) -> Preprocessing:
    return Preprocessing(size, "longest_side", "pillow_bilinear", "RGB", MEAN, STD, "right_bottom")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.sampled_from([64, 256]),
    seed=st.integers(0, 9),
)
def test_preprocess_is_segment_anythings(height: int, width: int, size: int, seed: int) -> None:
    image = noise(height, width, seed)
    transform = ResizeLongestSide(size)
    target = transform.get_preprocess_shape(height, width, size)
    if 0 in target:  # there segment_anything fails; here a side is never less than a pixel
        assert resized_size(height, width, size) == (max(target[0], 1), max(target[1], 1))
        return
    resized = torch.as_tensor(transform.apply_image(image)).permute(2, 0, 1)[None]
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (MEAN, STD))
    expected = torch.nn.functional.pad(
        (resized - mean) / std, (0, size - target[1], 0, size - target[0])
    )
    made = preprocess(image, rules(size))
    assert made.geometry.resized == target
    assert made.geometry.original == (height, width)
    assert made.tensor.dtype == np.float32
    np.testing.assert_array_equal(made.tensor, expected.numpy())


def test_a_sliver_keeps_a_row() -> None:
    made = preprocess(noise(1, 20000), rules(64))
    assert made.geometry.resized == (1, 64)


ENDINGS = ["jpg", "png", "webp", "tif", *(["avif"] if features.check("avif") else [])]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int, ending: str, tmp_path: Path) -> None:
    """An image is turned once, as Pillow's own `exif_transpose` turns it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(Image.fromarray(noise(20, 30)), tmp_path / f"photo.{ending}", exif=exif)
    with Image.open(path) as fresh:
        expected = np.asarray(ImageOps.exif_transpose(fresh).convert("RGB"))
    assert expected.shape == ((20, 30, 3) if orientation < 5 else (30, 20, 3))
    np.testing.assert_array_equal(read_image(path), expected)
    with open_picture(path) as opened:
        assert upright_size(opened) == expected.shape[:2]


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("mode", ["L", "I;16", "P", "RGBA"])
def test_a_tiff_of_any_mode_is_turned_once(
    mode: str, compression: str | None, tmp_path: Path
) -> None:
    stored = np.arange(600).reshape(20, 30)
    image = Image.fromarray((stored * 100).astype(np.uint16))
    if mode != "I;16":
        image = Image.fromarray((stored % 256).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(image, tmp_path / "a.tif", exif=exif, compression=compression)
    plain = read_image(save(image, tmp_path / "plain.tif", compression=compression))
    np.testing.assert_array_equal(read_image(path), np.rot90(plain, -1))


def test_transparency_shows_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[:, 3:] = (10, 20, 30, 255)
    expected = np.full((4, 6, 3), 255, np.uint8)
    expected[:, 3:] = (10, 20, 30)
    np.testing.assert_array_equal(
        read_image(save(Image.fromarray(rgba), tmp_path / "rgba.png")), expected
    )
    gray_alpha = Image.fromarray(rgba[..., [0, 3]], mode="LA")
    la = read_image(save(gray_alpha, tmp_path / "la.png"))
    assert la[0, 0].tolist() == [255, 255, 255]
    assert la[0, 5].tolist() == [10, 10, 10]


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    indices = np.array([[0, 1], [2, 1]], np.uint8)
    image = Image.fromarray(indices, mode="P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    opaque = read_image(save(image, tmp_path / "p.png"))
    assert opaque.tolist() == [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [0, 255, 0]]]
    clear = read_image(save(image, tmp_path / "pt.png", transparency=1))
    assert clear.tolist() == [[[255, 0, 0], [255, 255, 255]], [[0, 0, 255], [255, 255, 255]]]


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(ending: str, tmp_path: Path) -> None:
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    path = save(Image.fromarray(deep), tmp_path / f"deep.{ending}")
    assert read_image(path)[0, :, 0].tolist() == [0, 1, 128, 255]


RAMP = np.linspace(0, 1, 600).reshape(20, 30)


def as_depth(bits: int) -> np.ndarray:
    return np.rint(RAMP * (2**bits - 1)).astype(np.uint16)


def shown(path: Path) -> np.ndarray:
    """What a viewer shows of the ramp: the 8-bit picture of Pillow."""
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture
def eight_bits(tmp_path: Path) -> np.ndarray:
    return shown(save(Image.fromarray(np.rint(RAMP * 255).astype(np.uint8)), tmp_path / "8.png"))


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_samples_of_fewer_bits_are_noted_and_read_by_their_depth(
    ending: str, bits: int, eight_bits: np.ndarray, tmp_path: Path
) -> None:
    path = save(Image.fromarray(as_depth(bits)), tmp_path / f"scan.{ending}")
    for depth in (bits, str(bits)):
        read, note = read_image_with_note(path, depth)
        np.testing.assert_allclose(read.astype(int), eight_bits, atol=1)
        assert note is None
    np.testing.assert_array_equal(read_image(path, depth=bits), read)
    unasked, note = read_image_with_note(path)
    if bits == 16:
        np.testing.assert_array_equal(unasked, read)
        assert note is None
        return
    assert unasked.max() == np.rint((2**bits - 1) * 255 / 65535)
    assert note is not None
    assert f"scan.{ending}: its 16-bit samples are 0 to {2**bits - 1} of 65535" in note
    assert f"--depth {bits}" in note
    with pytest.raises(InputError, match=r"scan.*--depth 16"):
        read_image(save(Image.fromarray(as_depth(16)), tmp_path / f"scan.{ending}"), depth=bits)


@pytest.mark.parametrize("bits", [10, 12])
def test_a_tiff_that_says_its_largest_sample_is_read_by_it(
    bits: int, eight_bits: np.ndarray, tmp_path: Path
) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 2**bits - 1
    path = save(Image.fromarray(as_depth(bits)), tmp_path / "a.tif", tiffinfo=tags)
    read, note = read_image_with_note(path)
    np.testing.assert_allclose(read.astype(int), eight_bits, atol=1)
    assert note is None


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("bits", [8, 12, 16, 32])
def test_min_is_white(
    bits: int, compression: str | None, eight_bits: np.ndarray, tmp_path: Path
) -> None:
    """The stored samples are the picture inverted; Pillow reads this of 8 bits as it should."""
    if bits == 32:
        image = Image.fromarray(RAMP[::-1, ::-1].astype(np.float32))
    else:  # the inverse of a ramp is its reverse
        stored = as_depth(bits)[::-1, ::-1]
        image = Image.fromarray(stored.astype(np.uint8 if bits == 8 else np.uint16))
    path = save(image, tmp_path / "a.tif", tiffinfo={262: 0}, compression=compression)
    if bits == 8:  # Pillow inverts what it writes here, and the tag says so
        image = Image.open(path)
        assert image.tag_v2[262] == 0
        np.testing.assert_array_equal(read_image(path), shown(path))
        return
    set_photometric(path, 0)
    read, _ = read_image_with_note(path, 12 if bits == 12 else "auto")
    np.testing.assert_allclose(read.astype(int), eight_bits, atol=1)
    if bits == 12:
        assert "nearly white" in (read_image_with_note(path)[1] or "")


def set_photometric(path: Path, value: int) -> None:
    """Overwrite the tag of a little-endian TIFF, which Pillow chooses by the mode."""
    content = bytearray(path.read_bytes())
    entry = content.index((262).to_bytes(2, "little") + (3).to_bytes(2, "little"))
    content[entry + 8 : entry + 10] = value.to_bytes(2, "little")
    path.write_bytes(content)


def deep_colour_png(path: Path, samples: np.ndarray) -> Path:
    """Write uint16 [H, W, 3] as a PNG of 48 bits a pixel, which Pillow cannot write."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_deep_colour_says_what_is_lost(eight_bits: np.ndarray, tmp_path: Path) -> None:
    full = deep_colour_png(tmp_path / "full.png", np.stack([as_depth(16)] * 3, axis=-1))
    read, note = read_image_with_note(full, 16)
    np.testing.assert_allclose(read.astype(int), eight_bits, atol=1)
    assert note is None
    assert read_image_with_note(full)[1] is None
    dark = deep_colour_png(tmp_path / "dark.png", np.stack([as_depth(12)] * 3, axis=-1))
    assert "dark.png: its 16-bit samples stay below 4096" in (read_image_with_note(dark)[1] or "")
    with pytest.raises(InputError, match=r"dark\.png.*12 cannot be applied"):
        read_image(dark, depth=12)


def test_a_depth_changes_no_other_image(tmp_path: Path) -> None:
    path = save(Image.fromarray(noise(20, 30)), tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path, depth=12), noise(20, 30))
    for bad in (11, "twelve", ""):
        with pytest.raises(InputError, match="must be one of auto, 16, 12, 10, 8"):
            read_image(path, depth=bad)


def test_float_tiff(tmp_path: Path) -> None:
    for top in (1.0, 255.0, 65535.0):
        values = np.array([[0, 0.5, 1]], np.float32) * np.float32(top)
        path = save(Image.fromarray(values), tmp_path / "f.tif")
        assert read_image(path)[0, :, 1].tolist() == [0, 128, 255]
    for bad in (np.nan, -1.0, 1e9):
        path = save(Image.fromarray(np.array([[0, bad]], np.float32)), tmp_path / "f.tif")
        with pytest.raises(InputError, match=r"f\.tif.*samples"):
            read_image(path)


def test_gray_bilevel_and_cmyk(tmp_path: Path) -> None:
    gray = Image.fromarray(np.array([[0, 77, 255]], np.uint8))
    assert read_image(save(gray, tmp_path / "g.png")).tolist() == [[[0] * 3, [77] * 3, [255] * 3]]
    bits = Image.fromarray(np.array([[True, False]]))
    assert read_image(save(bits, tmp_path / "b.png")).tolist() == [[[255] * 3, [0] * 3]]
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, full magenta and yellow
    red = read_image(save(cmyk, tmp_path / "c.jpg", quality=95))
    assert red.shape == (16, 16, 3)
    np.testing.assert_allclose(red[8, 8], [255, 0, 0], atol=3)


def png_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(buffer, "JPEG")
    return buffer.getvalue()


BAD_FILES = {
    "empty.png": b"",
    "text.png": b"this is not an image\n",
    "cut.png": png_bytes()[:2000],
    "cut.jpg": jpeg_bytes()[:1500],
    "header.png": png_bytes()[:20],
    "nothing_wide.ppm": b"P6 0 5 255\n",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_FILES[name])
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 24\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Ghostscript that leaves a file when it runs; the file's path."""
    ran, folder = tmp_path / "ran", tmp_path / "programs"
    folder.mkdir()
    for name in ("gs", "gswin32c", "gswin64c"):
        (folder / name).write_text(f"#!/bin/sh\necho ran > '{ran}'\nexit 1\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    return ran


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.eps", "a"])
def test_no_picture_starts_a_program(name: str, ghostscript: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(EPS)
    with pytest.raises(InputError, match="not an image in a known format"):
        read_image(path)
    assert pixels_of(path) == 0
    assert not ghostscript.exists()
    with Image.open(path) as opened, contextlib.suppress(Exception):
        opened.load()
    assert ghostscript.exists(), "Pillow alone starts it, so the test can fail"


def raw_tiff(path: Path, samples: np.ndarray, sample_format: int) -> Path:
    """Write [H, W, bands] as an uncompressed TIFF of any dtype, which Pillow cannot write."""
    height, width, bands = samples.shape
    bits = samples.dtype.itemsize * 8
    values = {
        256: width,
        257: height,
        258: bits,
        259: 1,
        262: 1,
        273: 0,
        277: bands,
        278: height,
        279: samples.nbytes,
        339: sample_format,
    }
    values[273] = 8 + 2 + 12 * len(values) + 4 + 4 * bands
    extra = 8 + 2 + 12 * len(values) + 4
    entries = b""
    for tag, value in values.items():
        count = bands if tag in (258, 339) else 1
        kind = 3 if tag in (258, 259, 262, 277, 339) else 4
        if count > 2:  # does not fit into the entry
            value = extra if tag == 258 else extra + 2 * bands
        entries += struct.pack("<HHII", tag, kind, count, value)
    per_band = struct.pack("<H", bits) * bands + struct.pack("<H", sample_format) * bands
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(values))
    path.write_bytes(head + entries + b"\0" * 4 + per_band + samples.tobytes())
    return path


@pytest.mark.parametrize(
    ("samples", "sample_format", "hint"),
    [
        (np.zeros((4, 5, 1), np.float16), 3, "1 band of 16-bit float samples"),
        (np.zeros((4, 5, 1), np.float64), 3, "1 band of 64-bit float samples"),
        (np.zeros((4, 5, 5), np.uint16), 1, "5 bands of 16-bit unsigned samples"),
        (np.zeros((4, 5, 3), np.float32), 3, "3 bands of 32-bit float samples"),
    ],
)
def test_a_tiff_that_pillow_cannot_read_is_named(
    samples: np.ndarray, sample_format: int, hint: str, tmp_path: Path
) -> None:
    path = raw_tiff(tmp_path / "a.tif", samples, sample_format)
    with pytest.raises(UnidentifiedImageError):
        Image.open(path)
    with pytest.raises(InputError, match=rf"a\.tif: a TIFF with {hint}.*8 or 16 bits"):
        read_image(path)


def test_the_tiff_of_this_test_is_one(tmp_path: Path) -> None:
    """Pillow reads what it can of what `raw_tiff` writes."""
    values = np.arange(20, dtype=np.float32).reshape(4, 5, 1)
    with Image.open(raw_tiff(tmp_path / "a.tif", values, 3)) as image:
        np.testing.assert_array_equal(np.asarray(image), values[..., 0])


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40


def test_heic_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "photo.jpg"
    path.write_bytes(HEIC)
    with pytest.raises(InputError, match=r"photo\.jpg: a HEIC image; install pillow-heif"):
        read_image(path)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_heic_is_read_where_pillow_heif_is_installed(orientation: int, tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(Image.fromarray(noise(64, 96)), tmp_path / "a.heic", exif=exif)
    with Image.open(path) as fresh:
        expected = np.asarray(ImageOps.exif_transpose(fresh).convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)
    with open_picture(path) as opened:
        assert upright_size(opened) == expected.shape[:2]


def test_pictures_are_opened_in_one_place() -> None:
    root = Path(__file__).parents[2]
    packages = [path.parent for path in root.glob("*/glesam_*/__init__.py")]
    assert len(packages) == 7
    opening = [
        path.name
        for package in packages
        for path in package.rglob("*.py")
        if "Image.open(" in path.read_text("utf-8")
    ]
    assert opening == ["image_file.py"]


DECODED = [
    ("bmp", {}),
    ("gif", {}),
    ("ico", {"sizes": [(30, 20)]}),
    ("jp2", {"irreversible": False}),
    ("pcx", {}),
    ("ppm", {}),
    ("sgi", {}),
    ("tga", {}),
    ("webp", {"lossless": True}),
]


@pytest.mark.parametrize(("ending", "options"), DECODED)
def test_other_formats_are_read_as_pillow_reads_them(
    ending: str, options: dict, tmp_path: Path
) -> None:
    path = save(Image.fromarray(noise(20, 30)), tmp_path / f"a.{ending}", **options)
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(read_image(path), expected)


def test_missing_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(InputError, match="a folder"):
        read_image(tmp_path)


def test_wide_images_are_read_and_huge_ones_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    assert 2 * limit < 20000 * 10000 < MEGAPIXELS.value
    # A hundredth of those pixels, and of Pillow's limit.
    path = save(Image.new("L", (2000, 1000)), tmp_path / "wide.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit // 100)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)
    assert read_image(path).shape == (1000, 2000, 3)
    assert limit // 100 == Image.MAX_IMAGE_PIXELS  # left as it was
    monkeypatch.setenv("GLESAM_MAX_MEGAPIXELS", "1")
    with pytest.raises(InputError, match="2000 x 1000 pixels"):
        read_image(path)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        "photo.jpg",
    ],
)
def test_wrong_arrays(image: object) -> None:
    with pytest.raises(InputError, match=r"^image: "):
        preprocess(image, rules(64))  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX files")
def test_a_fifo_is_refused_by_every_reader(tmp_path: Path) -> None:
    """Opening one would wait for a writer."""
    fifo = tmp_path / "a.png"
    os.mkfifo(fifo)
    with pytest.raises(InputError, match=r"a\.png: a FIFO, but images are read from regular files"):
        read_image(fifo)
    with pytest.raises(InputError, match=r"a FIFO"), open_picture(fifo):
        pass
    assert pixels_of(fifo) == 0
