"""Images: cut, damaged, of too many pixels, of formats that start programs, and no files at all."""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..case import Case, Place, accepted
from ..damage import cut, flipped, nested, sparse

_SUFFIXES = {
    "PNG": "png",
    "JPEG": "jpg",
    "BMP": "bmp",
    "GIF": "gif",
    "TIFF": "tif",
    "WEBP": "webp",
    "PPM": "ppm",
    "TGA": "tga",
    "PCX": "pcx",
    "SGI": "sgi",
    "ICO": "ico",
    "DDS": "dds",
    "JPEG2000": "jp2",
    "AVIF": "avif",
}


def _encoded(format: str, **options: Any) -> bytes:
    """Return a sound picture of 48 x 32 pixels in a format of Pillow."""
    pixels = (np.mgrid[0:32, 0:48].sum(axis=0) * 3 % 256).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([pixels] * 3, axis=-1)).save(buffer, format, **options)
    return buffer.getvalue()


def _file(
    name: str,
    file: str | bytes,
    content: Callable[[Place], bytes | str],
    says: str = "",
    **further: Any,
) -> Case:
    """Return the case of an image file with this content."""

    def make(place: Place) -> list[Any]:
        return place.command(image=place.write(file, content(place)))

    return Case("image", name, make, says or "inputs", **further)


def _path(
    name: str,
    file: str | bytes,
    change: Callable[[Path], object],
    says: str = "inputs",
    point: str = "9,9",
    **further: Any,
) -> Case:
    """Return the case of an image path at which `change` makes something."""

    def make(place: Place) -> list[Any]:
        path = place.inputs / os.fsdecode(file)
        change(path)
        return place.command(image=path, point=point)

    return Case("image", name, make, says, **further)


def _named(name: str, file: str | bytes, **further: Any) -> Case:
    """Return the case of a sound image with a strange name."""

    def make(place: Place) -> list[Any]:
        sound = place.photo()
        return place.command(image=sound.rename(sound.with_name(os.fsdecode(file))))

    return Case("image", name, make, **{"codes": (0,), **further})


def _given(name: str, image: Any, says: str, **further: Any) -> Case:
    """Return the case of an image argument that is no file of ours."""
    return Case("image", name, lambda place: place.command(image=image), says, **further)


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def _png(width: int, height: int, *chunks: bytes, colour: int = 0, pixels: bytes = b"") -> bytes:
    """Return a PNG of 8 bits with this header, further chunks, and compressed pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    parts = [_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", pixels), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _zeros(size: int) -> bytes:
    """Return `size` zeros, compressed a thousandfold."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(size >> 20)]
    return b"".join([*parts, packer.compress(bytes(size % (1 << 20))), packer.flush()])


def _tiff(entries: list[tuple[int, int, int, int]], following: int = 0) -> bytes:
    """Return a TIFF with these directory entries: tag, type, count, value."""
    body = b"".join(struct.pack("<HHII", *each) for each in entries)
    return (
        b"II*\x00\x08\x00\x00\x00"
        + struct.pack("<H", len(entries))
        + body
        + struct.pack("<I", following)
    )


def _tiff_of(
    width: int, height: int, *more: tuple[int, int, int, int], following: int = 0
) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    strips = [(273, 4, 1, 200), (278, 4, 1, height), (279, 4, 1, 64)]
    entries = {entry[0]: entry for entry in (*tags, *strips, *more)}
    return _tiff([entries[tag] for tag in sorted(entries)], following) + bytes(300)


def _float_tiff(value: float) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), value, np.float32)).save(buffer, "TIFF")
    return buffer.getvalue()


_PROGRAM = b"(%pipe%touch witness) (w) file closefile systemdict /exec get\n"
_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n%%EndComments\n" + _PROGRAM
_FOREIGN: list[tuple[str, bytes]] = [
    ("EPS", _EPS),
    (
        "EPS behind a DOS header",
        struct.pack("<IIIIIIIH", 0xC6D3D0C5, 30, len(_EPS), 0, 0, 0, 0, 0xFFFF) + _EPS,
    ),
    ("PDF", b"%PDF-1.7\n1 0 obj<</OpenAction<</S/Launch/F(/bin/sh)>>>>endobj\n%%EOF"),
    (
        "SVG",
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    ),
    ("MVG", b"push graphic-context\nimage over 0,0 0,0 'msl:/etc/passwd'\npop graphic-context\n"),
    ("HTML", b"<html><script>alert(1)</script>"),
    ("ZIP", b"PK\x03\x04" + bytes(60)),
    ("gzip", b"\x1f\x8b\x08" + bytes(60)),
    ("MP4", b"\x00\x00\x00\x18ftypisom" + bytes(60)),
    ("HEIC", b"\x00\x00\x00\x18ftypheic" + bytes(60)),
    ("WMF", b"\xd7\xcd\xc6\x9a" + bytes(60)),
    ("FITS", b"SIMPLE  =                    T" + b" " * 2850),
    ("HDF5", b"\x89HDF\r\n\x1a\n" + bytes(60)),
    ("GRIB", b"GRIB" + bytes(3) + b"\x01" + bytes(60)),
    ("FPX", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)),
    ("a shell script", b"#!/bin/sh\ntouch witness\n"),
    ("a pickle", b"cos\nsystem\n(S'touch witness'\ntR."),
    ("JSON", nested(5000).encode()),
    ("XBM", b"#define x_width 60000\n#define x_height 60000\nstatic char x_bits[] = {"),
    ("XPM", b'/* XPM */\nstatic char *x[] = {"60000 60000 2 1",'),
]
_EXIF_LOOP = b"Exif\x00\x00" + _tiff([(0x8769, 4, 1, 8)], 8)
_CRAFTED: list[tuple[str, str, Callable[[], bytes | str]]] = [
    ("PNG of 2^31 x 2^31", "a.png", lambda: _png(0x7FFFFFFF, 0x7FFFFFFF)),
    ("PNG of 0 x 0", "a.png", lambda: _png(0, 0)),
    ("PNG of 30000 x 30000", "a.png", lambda: _png(30_000, 30_000, pixels=_zeros(1 << 20))),
    ("PNG without pixels", "a.png", lambda: _png(48, 32)),
    ("PNG with a chunk of 2^31 bytes", "a.png", lambda: _png(9, 9)[:33] + b"\x7f\xff\xff\xffIDAT"),
    (
        "PNG with text of 64 MB",
        "a.png",
        lambda: _png(9, 9, _chunk(b"zTXt", b"a\0\0" + _zeros(64 << 20))),
    ),
    (
        "PNG with a profile of 64 MB",
        "a.png",
        lambda: _png(9, 9, _chunk(b"iCCP", b"a\0\0" + _zeros(64 << 20))),
    ),
    ("PNG with 50000 chunks", "a.png", lambda: _png(9, 9, *[_chunk(b"tEXt", b"a\0b")] * 50_000)),
    (
        "animated PNG of 2^31 frames",
        "a.png",
        lambda: _png(9, 9, _chunk(b"acTL", b"\x7f\xff\xff\xff" + bytes(4))),
    ),
    (
        "GIF of 65535 x 65535",
        "a.gif",
        lambda: (
            b"GIF89a\xff\xff\xff\xff\x00\x00\x00," + bytes(4) + b"\xff\xff\xff\xff\x00\x08\x00;"
        ),
    ),
    (
        "BMP of 2^31 pixels",
        "a.bmp",
        lambda: (
            b"BM"
            + struct.pack(
                "<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 0x7FFFFFFF, 1, 1, 24, 0, 0, 0, 0, 0, 0
            )
        ),
    ),
    (
        "BMP of -2^31 rows",
        "a.bmp",
        lambda: (
            b"BM"
            + struct.pack(
                "<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 9, -(1 << 31), 1, 24, 0, 0, 0, 0, 0, 0
            )
        ),
    ),
    (
        "BMP whose runs leave the picture",
        "a.bmp",
        lambda: (
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 1078, 40, 48, 32, 1, 8, 1, 0, 0, 0, 256, 0)
            + bytes(1024)
            + b"\x00\x02\xff\xff" * 9
        ),
    ),
    ("TIFF of 2^32 x 2^32", "a.tif", lambda: _tiff_of(0xFFFFFFFF, 0xFFFFFFFF)),
    ("TIFF of 16777216 x 32", "a.tif", lambda: _tiff_of(1 << 24, 32)),
    ("TIFF whose directory follows itself", "a.tif", lambda: _tiff_of(48, 32, following=8)),
    ("TIFF with 2^32 strips", "a.tif", lambda: _tiff_of(48, 32, (273, 4, 0xFFFFFFFF, 8))),
    ("TIFF with 2^32 samples", "a.tif", lambda: _tiff_of(48, 32, (277, 4, 1, 0xFFFFFFFF))),
    ("TIFF with strips at 2^32", "a.tif", lambda: _tiff_of(48, 32, (273, 4, 1, 0xFFFFFFFF))),
    ("TIFF with an unknown compression", "a.tif", lambda: _tiff_of(48, 32, (259, 3, 1, 60_000))),
    ("TIFF with a tag of 2^32 bytes", "a.tif", lambda: _tiff_of(48, 32, (270, 2, 0xFFFFFFFF, 8))),
    ("TIFF of NaN", "a.tif", lambda: _float_tiff(float("nan"))),
    ("TIFF of infinity", "a.tif", lambda: _float_tiff(float("inf"))),
    ("TIFF of 1e38", "a.tif", lambda: _float_tiff(1e38)),
    (
        "JPEG of 65535 x 65535",
        "a.jpg",
        lambda: _encoded("JPEG").replace(b"\x00\x20\x00\x30", b"\xff\xff\xff\xff", 1),
    ),
    (
        "JPEG with 200 scans of one byte",
        "a.jpg",
        lambda: (
            _encoded("JPEG", progressive=True)[:-2]
            + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00" * 200
        ),
    ),
    (
        "WebP of 16384 x 16384",
        "a.webp",
        lambda: b"RIFF\xff\xff\xff\x7fWEBPVP8L\xff\xff\xff\x7f/\xff\xff\xff\x0f" + bytes(40),
    ),
    (
        "WebP with a chunk of 2^32 bytes",
        "a.webp",
        lambda: b"RIFF\xff\xff\xff\xffWEBPVP8X\xff\xff\xff\xff" + bytes(40),
    ),
    ("PPM of 999999999 x 999999999", "a.ppm", lambda: b"P6 999999999 999999999 255\n"),
    ("PPM of 10^400 x 1", "a.ppm", lambda: b"P6 1" + b"0" * 400 + b" 1 255\n"),
    ("PPM of -9 x 9", "a.ppm", lambda: b"P6 -9 9 255\n"),
    ("PPM with a comment of 20 MB", "a.ppm", lambda: b"P6 #" + b"x" * (20 << 20)),
    ("PPM in text of 5 million tokens", "a.ppm", lambda: b"P3 9 9 255\n" + b"1 " * 5_000_000),
    ("PPM whose largest value is 0", "a.ppm", lambda: b"P6 9 9 0\n" + bytes(243)),
    ("PFM of NaN", "a.ppm", lambda: b"Pf 9 9 nan\n" + bytes(324)),
    (
        "TGA of 65535 x 65535",
        "a.tga",
        lambda: b"\x00\x00\x0a" + bytes(9) + b"\xff\xff\xff\xff\x18\x20" + bytes(9),
    ),
    (
        "PCX of 65536 x 65536",
        "a.pcx",
        lambda: (
            b"\x0a\x05\x01\x08"
            + bytes(4)
            + b"\xff\xff\xff\xff"
            + bytes(52)
            + b"\x00\x01\xff\xff"
            + bytes(64)
        ),
    ),
    (
        "SGI of 65535 x 65535",
        "a.sgi",
        lambda: b"\x01\xda\x01\x01\x00\x03\xff\xff\xff\xff\x00\x03" + bytes(500),
    ),
    (
        "ICO that holds a huge PNG",
        "a.ico",
        lambda: (
            b"\x00\x00\x01\x00\x01\x00\x00\x00\x00\x00\x01\x00\x20\x00"
            + struct.pack("<II", 99, 22)
            + _png(1 << 30, 1 << 30)
        ),
    ),
    ("ICO with 65535 pictures", "a.ico", lambda: b"\x00\x00\x01\x00\xff\xff" + bytes(16 * 65535)),
    (
        "DDS of 2^31 x 2^31",
        "a.dds",
        lambda: b"DDS |\x00\x00\x00\x07\x10\x00\x00\xff\xff\xff\x7f\xff\xff\xff\x7f" + bytes(108),
    ),
    (
        "PSD of 300000 x 300000",
        "a.psd",
        lambda: (
            b"8BPS\x00\x01"
            + bytes(6)
            + b"\x00\x03"
            + struct.pack(">II", 300_000, 300_000)
            + b"\x00\x08\x00\x03"
            + bytes(40)
        ),
    ),
    (
        "QOI of 2^32 x 2^32",
        "a.qoi",
        lambda: b"qoif\xff\xff\xff\xff\xff\xff\xff\xff\x03\x00" + bytes(40),
    ),
    (
        "JPEG 2000 of 2^32 x 2^32",
        "a.jp2",
        lambda: (
            b"\xff\x4f\xff\x51\x00\x2f\x00\x00"
            + b"\xff" * 8
            + bytes(8)
            + b"\xff" * 8
            + bytes(8)
            + b"\x00\x03\x07\x01\x01"
            + bytes(30)
        ),
    ),
]


def _long(shape: tuple[int, ...]) -> Callable[[Path], object]:
    return lambda path: Image.fromarray(np.zeros(shape, np.uint8)).save(path)


def _listen(path: Path) -> None:
    """Make a socket; its path may be longer than the system allows, so it is bound by its name."""
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def _between(place: Place) -> list[Any]:
    """Give two sound images and hostile ones between them."""
    fifo = place.inputs / "fifo.png"
    os.mkfifo(fifo)
    hostile = [fifo, "/dev/zero", place.write("eps.png", _EPS), place.inputs / "none.png"]
    return [place.photo(), *hostile, *place.command(image=place.photo("last.png"))]


def _both_written(place: Place) -> str | None:
    made = sorted(path.name for path in place.out.iterdir())
    wanted = ["last_mask.png", "last_overlay.png", "photo_mask.png", "photo_overlay.png"]
    return None if made == wanted else f"made {made}"


_BY_FORMAT = [
    case
    for format, suffix in _SUFFIXES.items()
    for case in (
        _file(f"{format} cut in its header", f"a.{suffix}", lambda _, f=format: _encoded(f)[:14]),
        _file(
            f"{format} cut",
            f"a.{suffix}",
            lambda place, f=format: cut(_encoded(f), place.random),
            **accepted(),
        ),
        _file(
            f"{format} with flipped bits",
            f"a.{suffix}",
            lambda place, f=format: flipped(_encoded(f), place.random, 9),
            **accepted(),
        ),
    )
]
_PATHS = [
    _path("a FIFO", "a.png", os.mkfifo, "FIFO"),
    _path("a socket", "a.png", _listen, "socket"),
    _path("a folder", "a.png", Path.mkdir, "folder"),
    _path("a link to itself", "a.png", lambda path: path.symlink_to(path)),
    _path("a link to nothing", "a.png", lambda path: path.symlink_to("none")),
    _path("a link to /dev/zero", "a.png", lambda path: path.symlink_to("/dev/zero"), "device"),
    _path("a link to a process's memory", "a.png", lambda path: path.symlink_to("/proc/self/mem")),
    _path("10 GB of nothing", "a.png", lambda path: sparse(path, 10 << 30)),
    _path("10 GB with a PNG's header", "a.png", lambda p: sparse(p, 10 << 30, _png(48, 32)[:33])),
    _path(
        "10 GB with a TIFF's header",
        "a.tif",
        lambda p: sparse(p, 10 << 30, _tiff_of(48, 32)),
        **accepted(),
    ),
    _path(
        "10 GB with a WebP's header", "a.webp", lambda p: sparse(p, 10 << 30, _encoded("WEBP")[:64])
    ),
    _path(
        "10 GB with a PPM's header",
        "a.ppm",
        lambda p: sparse(p, 10 << 30, b"P6 48 32 255\n"),
        **accepted(),
    ),
    _path("an empty file", "a.png", Path.touch, "empty"),
    _path("1,200,000 x 1 pixels", "a.png", _long((1, 1_200_000, 3)), point="0,0", codes=(0,)),
    _path("1 x 1,200,000 pixels", "a.png", _long((1_200_000, 1, 3)), point="0,0", codes=(0,)),
    _path(
        "17 million x 1 pixels",
        "a.png",
        lambda path: path.write_bytes(_png(1 << 25, 1)),
        "GLESAM_MAX_SIDE",
    ),
    _path("one pixel", "a.png", _long((1, 1, 3)), "point"),
]
_NAMES = [
    _named("a name of 244 bytes", "m" * 240 + ".png"),
    _named("a name of 255 bytes", "m" * 251 + ".png", codes=(2,), says="too long"),
    _named("a name of 255 bytes of 3-byte letters", "\u6f22" * 83 + ".png", codes=(0, 2)),
    _named("a name that commands a terminal", "a\x1b[2J\x07\x9b31m.png"),
    _named("a name of several lines", "a\r\nerror: b\n.png"),
    _named("a name that is no UTF-8", b"\xff\xfe\xe9.png"),
    _named("a name that turns the direction of text", "a\u202egnp.exe\u2066.png"),
    _named("a name of dots", "...png"),
    _named("a name that looks like a mask", "%s%n{0}$(touch witness);`touch witness`.png"),
    _named("an image named as another format", "photo.jpg.exe"),
]
_ARGUMENTS = [
    _given("/dev/zero", "/dev/zero", "device"),
    _given("/dev/random", "/dev/random", "device"),
    _given("/dev/null", "/dev/null", "device"),
    _given("/dev/tty", "/dev/tty", ""),
    _given("/proc/self/mem", "/proc/self/mem", ""),
    _given("/proc/kmsg", "/proc/1/environ", ""),
    _given("a name of 300 characters", "x" * 300 + ".png", "xxx"),
    _given("a name of 5000 characters", "y" * 5000 + ".png", "yyy"),
    _given("a name of nothing", "", ""),
    _given("a name with a null character", "a\0.png", ""),
    _given("an address", "http://127.0.0.1:9/a.png", "no such file"),
    _given("a data address", "data:image/png;base64," + "A" * 5000, "no such file"),
    _given("an archive's member", "zip:///a.zip!/a.png", "no such file"),
    Case(
        "image",
        "hostile images between sound ones",
        _between,
        "device",
        lines=4,
        writes=True,
        after=_both_written,
    ),
]
CASES = [
    *_BY_FORMAT,
    *(_file(f"{name} named .png", "a.png", lambda _, c=content: c) for name, content in _FOREIGN),
    *(
        _file(name, file, lambda _, content=content: content(), **accepted())
        for name, file, content in _CRAFTED
    ),
    _file(
        "JPEG with a looping EXIF block",
        "a.jpg",
        lambda _: _encoded("JPEG", exif=_EXIF_LOOP),
        **accepted(),
    ),
    *_PATHS,
    *_NAMES,
    *_ARGUMENTS,
]
