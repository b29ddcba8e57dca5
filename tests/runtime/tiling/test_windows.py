"""Windows of a picture are the same pixels that Pillow reads, whatever reads them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glesam_runtime import read_image
from glesam_runtime.errors import InputError
from glesam_runtime.tiling import raster, window_files
from glesam_runtime.tiling.raster import RasterWindows
from glesam_runtime.tiling.raw_tiff import RawTiff
from glesam_runtime.tiling.window_files import open_windows
from glesam_runtime.tiling.windows import ArrayWindows, read_reduced

BOXES = [(0, 0, 97, 61), (3, 5, 40, 50), (90, 60, 97, 61), (0, 30, 97, 31)]


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (61, 97, 3), np.uint8)


@pytest.fixture
def no_rasterio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raster, "is_installed", lambda: False)


def save(picture: np.ndarray, path: Path, kind: str) -> Path:
    image = Image.fromarray(picture)
    if kind == "gray":
        image.convert("L").save(path)
    elif kind == "rows":
        image.save(path, tiffinfo={278: 7})  # rows per strip
    elif kind == "tiles":
        import tifffile

        tifffile.imwrite(path, picture, tile=(16, 32), photometric="rgb")
    else:
        image.save(path, compression=kind or None)
    return path


@pytest.mark.parametrize("kind", ["", "gray", "rows", "tiles"])
def test_an_uncompressed_tiff_is_read_in_windows_without_rasterio(
    picture: np.ndarray, tmp_path: Path, no_rasterio: None, kind: str
) -> None:
    path = save(picture, tmp_path / "a.tif", kind)
    windows = open_windows(path)
    assert isinstance(windows, RawTiff)
    whole = read_image(path)
    assert (windows.height, windows.width) == whole.shape[:2]
    for x0, y0, x1, y1 in BOXES:
        assert np.array_equal(windows.read((x0, y0, x1, y1)), whole[y0:y1, x0:x1])
    windows.close()


@pytest.mark.parametrize("kind", ["", "gray", "rows", "tiles", "tiff_deflate", "tiff_lzw"])
def test_rasterio_reads_the_pixels_that_pillow_reads(
    picture: np.ndarray, tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("rasterio")
    path = save(picture, tmp_path / "a.tif", kind)
    windows = open_windows(path)
    assert isinstance(windows, RasterWindows)
    whole = read_image(path)
    for x0, y0, x1, y1 in BOXES:
        assert np.array_equal(windows.read((x0, y0, x1, y1)), whole[y0:y1, x0:x1])
    windows.close()


def test_rasterio_scales_16_bits_and_shows_transparency_on_white(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    rng = np.random.default_rng(1)
    gray = rng.integers(0, 1024, (40, 50), np.uint16)
    Image.fromarray(gray).save(tmp_path / "gray.tif")
    for depth in (16, 10):
        windows = open_windows(tmp_path / "gray.tif", depth)
        assert isinstance(windows, RasterWindows)
        whole = read_image(tmp_path / "gray.tif", depth)
        assert np.array_equal(windows.read((0, 0, 50, 40)), whole)
    assert "give --depth 10" in (open_windows(tmp_path / "gray.tif").note or "")
    with pytest.raises(InputError, match="more than 8 bits"):
        open_windows(tmp_path / "gray.tif", 8).read((0, 0, 50, 40))
    clear = rng.integers(0, 256, (40, 50, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.tif")
    windows = open_windows(tmp_path / "clear.tif")
    assert isinstance(windows, RasterWindows)
    difference = windows.read((0, 0, 50, 40)).astype(int) - read_image(tmp_path / "clear.tif")
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("with_rasterio", [True, False])
def test_other_pictures_are_read_whole(
    picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_rasterio: bool
) -> None:
    if with_rasterio:
        pytest.importorskip("rasterio")
    else:
        monkeypatch.setattr(raster, "is_installed", lambda: False)
    image = Image.fromarray(picture)
    image.save(tmp_path / "bmp.bmp")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=turned)
    image.convert("P").save(tmp_path / "palette.tif")
    Image.fromarray(picture[..., 0].astype(np.float32)).save(tmp_path / "float.tif")
    for path in tmp_path.iterdir():
        windows = open_windows(path)
        assert isinstance(windows, ArrayWindows), path
        assert np.array_equal(windows.image, read_image(path))
    content = io.BytesIO()
    image.save(content, "TIFF")
    assert isinstance(open_windows("stdin", content=content.getvalue()), ArrayWindows)


def test_a_limit_holds_only_for_what_is_read_whole(
    picture: np.ndarray, tmp_path: Path, no_rasterio: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = np.tile(picture, (20, 11, 1))[:1200, :1000]
    Image.fromarray(big).save(tmp_path / "raw.tif")
    Image.fromarray(big).save(tmp_path / "packed.tif", compression="tiff_deflate")
    monkeypatch.setenv("GLESAM_MAX_MEGAPIXELS", "1")
    windows = open_windows(tmp_path / "raw.tif")
    assert np.array_equal(windows.read((10, 20, 30, 40)), big[20:40, 10:30])
    with pytest.raises(InputError) as caught:
        open_windows(tmp_path / "packed.tif")
    assert "1000 x 1200 pixels" in str(caught.value)
    assert "pip install 'glesam-runtime[geo]', or save it as an uncompressed" in str(caught.value)


def test_a_truncated_tiff_is_refused_by_name(
    picture: np.ndarray, tmp_path: Path, no_rasterio: None
) -> None:
    path = tmp_path / "cut.tif"
    Image.fromarray(picture).save(path)
    raw = path.read_bytes()
    offset = Image.open(path).tag_v2[273][0]
    assert offset > 8, "Pillow writes the tags first"
    path.write_bytes(raw[: offset + 1000])
    with pytest.raises(InputError, match=r"cut\.tif: ends before its pixels do"):
        open_windows(path).read((0, 0, 97, 61))


def test_wrong_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.tif").write_text("no picture")
    for source, words in (
        (tmp_path / "none.tif", "no such file"),
        (tmp_path, "a folder"),
        (tmp_path / "text.tif", "text.tif"),
        (np.zeros((4, 4)), "must be uint8"),
        (7, "not int"),
    ):
        with pytest.raises(InputError, match=words):
            open_windows(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("factor", [1, 2, 5, 64])
def test_a_reduced_part_has_the_means_of_squares(
    picture: np.ndarray, monkeypatch: pytest.MonkeyPatch, factor: int
) -> None:
    monkeypatch.setattr("glesam_runtime.tiling.windows._BAND_PIXELS", 400)
    x0, y0, x1, y1 = box = (3, 5, 96, 60)
    reduced = read_reduced(ArrayWindows(picture), box, factor)
    part = picture[y0:y1, x0:x1].astype(np.float64)
    for row in range(-(-(y1 - y0) // factor)):
        for column in range(-(-(x1 - x0) // factor)):
            square = part[row * factor :, column * factor :][:factor, :factor]
            assert np.abs(reduced[row, column] - square.mean(axis=(0, 1))).max() <= 0.5
    assert window_files.INSTALL.endswith("[geo]'")
