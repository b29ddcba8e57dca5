"""Images of the second list: every format that Pillow opens, and metadata that is a bomb.

The second list was written without sight of the first one and of the code that answers it.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from ..case import Case, Place, accepted
from ..damage import sparse


def _file(
    name: str, file: str, content: Callable[[Place], bytes | str], says: str = "", **further: Any
) -> Case:
    """Return the case of an image file with this content."""

    def make(place: Place) -> list[Any]:
        return place.command(image=place.write(file, content(place)), point="3,3")

    return Case("second image", name, make, says or "inputs", **further)


def _sound(name: str, file: str, content: Callable[[Place], bytes | str], **further: Any) -> Case:
    """Return the case of a strange file that is a picture nevertheless."""
    return _file(name, file, content, **{"codes": (0,), "notes": True, **further})


def _pixels(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    ramp = (np.mgrid[0 : size[1], 0 : size[0]].sum(axis=0) * 3 % 256).astype(np.uint8)
    return Image.fromarray(np.stack([ramp] * 3, axis=-1)).convert(mode)


def _encoded(format: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    _pixels(mode).save(buffer, format, **options)
    return buffer.getvalue()


def _frames(format: str, count: int, **options: Any) -> bytes:
    """Return an animation or a file of several pages."""
    buffer = io.BytesIO()
    first, *more = [_pixels(size=(24, 16)).rotate(n % 360) for n in range(count)]
    first.save(buffer, format, save_all=True, append_images=more, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def _with_chunks(sound: bytes, *chunks: bytes) -> bytes:
    """Insert chunks behind the header of a PNG."""
    return sound[:33] + b"".join(chunks) + sound[33:]


def _png(
    chunks: tuple[bytes, ...] = (),
    *,
    header: bytes | None = None,
    bits: int = 8,
    colour: int = 2,
    interlaced: int = 0,
    rows: bytes | None = None,
) -> bytes:
    """Return a PNG of 8 x 8 pixels of which any part can be replaced."""
    head = struct.pack(">IIBBBBB", 8, 8, bits, colour, 0, 0, interlaced)
    packed = zlib.compress(bytes(8 * 25)) if rows is None else rows
    parts = [_chunk(b"IHDR", head if header is None else header), *chunks]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts, _chunk(b"IDAT", packed), _chunk(b"IEND", b"")])


def _zeros(mebibytes: int) -> bytes:
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(mebibytes)), packer.flush()])


def _interlaced() -> bytes:
    """Return an interlaced PNG of noise that ends in the fourth pass."""
    noise = os.urandom(8 * 25 + 200)
    return _png(interlaced=1, rows=zlib.compress(noise)[:90])


def _exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Return an EXIF block of these entries: tag, type, count and four bytes of value."""
    body = b"".join(struct.pack("<HHI", *each[:3]) + each[3] for each in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + body + bytes(4)


def _orientation(kind: int, count: int, value: bytes) -> Callable[[Place], bytes]:
    return lambda _: _encoded("JPEG", exif=_exif((0x0112, kind, count, value)))


def _segments(count: int, marker: int, content: bytes) -> bytes:
    """Return a JPEG with many segments behind its start."""
    sound = _encoded("JPEG")
    segment = b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content
    return sound[:2] + segment * count + sound[2:]


def _pages(count: int) -> bytes:
    """Return a TIFF of many directories that share the same pixels."""
    first = _directory(8, 14 + 12 * 9)
    parts = [b"II*\0\x08\0\0\0"]
    position = 8
    for n in range(count):
        following = 0 if n == count - 1 else position + len(first)
        parts.append(_directory(position, following, 8 + len(first) * count))
        position += len(first)
    return b"".join(parts) + bytes(64)


def _directory(_: int, following: int, pixels: int = 8, **changes: Any) -> bytes:
    tags: dict[int, tuple[int, int, int]] = {
        256: (3, 1, 8),
        257: (3, 1, 8),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, pixels),
        277: (3, 1, 1),
        278: (3, 1, 8),
        279: (4, 1, 64),
    }
    for tag, value in changes.items():
        tags[int(tag.removeprefix("t"))] = value
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return struct.pack("<H", len(tags)) + entries + struct.pack("<I", following)


def _tiff(**changes: tuple[int, int, int]) -> bytes:
    """Return a TIFF of 8 x 8 gray pixels with other tags; t278 stands for the tag 278."""
    size = 8 + 6 + 12 * (9 + len([each for each in changes if int(each[1:]) not in _KNOWN]))
    return b"II*\0\x08\0\0\0" + _directory(8, 0, size, **changes) + bytes(64)


_KNOWN = (256, 257, 258, 259, 262, 273, 277, 278, 279)


def _subdirectories() -> bytes:
    """Return a TIFF whose EXIF, GPS and sub-directories are its own directory."""
    return _tiff(t330=(4, 1, 8), t34665=(4, 1, 8), t34853=(4, 1, 8))


def _big_tiff_loop() -> bytes:
    """Return a BigTIFF whose first directory has 2^60 entries."""
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, 1 << 60) + bytes(64)


def _ico(entries: list[tuple[int, int]], body: bytes = b"") -> bytes:
    """Return an ICO of pictures at these places: size and offset."""
    table = b"".join(struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, *each) for each in entries)
    return struct.pack("<HHH", 0, 1, len(entries)) + table + body


def _deep_tiff(**tags: Any) -> bytes:
    buffer = io.BytesIO()
    values = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        values[int(tag[1:])] = value
    _pixels("L").save(buffer, "TIFF", tiffinfo=values)
    return buffer.getvalue()


def _animated_png(count: int) -> bytes:
    return _with_chunks(_encoded("PNG"), _chunk(b"acTL", struct.pack(">II", count, 0)))


def _formats(*formats: str) -> list[Case]:
    """Return the cases of what Pillow can write and the program need not read."""
    modes = {"MSP": "1", "SPIDER": "F", "XBM": "1"}
    return [
        _file(
            f"{format}, whole",
            f"a.{format.lower()}",
            lambda _, f=format: _encoded(f, modes.get(f, "RGB")),
            **accepted(),
        )
        for format in formats
    ]


def _modes(format: str, *modes: str) -> list[Case]:
    return [
        _sound(
            f"{format} of mode {mode}", f"a.{format.lower()}", lambda _, m=mode: _encoded(format, m)
        )
        for mode in modes
    ]


def _named(name: str, file: str, *before: str, says: str = "", **further: Any) -> Case:
    """Return the case of a sound image with a name that looks like something else."""

    def make(place: Place) -> list[Any]:
        path = place.photo()
        path.rename(path.with_name(file))
        path = path.with_name(file)
        relative = os.path.relpath(path, place.cwd)
        return [*place.command(image="--points=3,3")[3:], "--points", "3,3", *before, relative]

    return Case("second image", name, make, says, **{"codes": (0,), **further})


def _in_cwd(name: str, file: str, separator: str, says: str = "", **further: Any) -> Case:
    """Return the case of an image in the current folder whose name starts with a dash."""

    def make(place: Place) -> list[Any]:
        place.photo().rename(place.cwd / file)
        return ["--points", "3,3", *place.engine(), *filter(None, [separator]), file]

    return Case("second image", name, make, says, **further)


def _again(place: Place) -> list[Any]:
    """Give one image twice, a link to it, and another of the same stem."""
    image = place.photo()
    link = place.inputs / "link.png"
    link.symlink_to(image)
    return [image, image, link, place.photo("photo.bmp"), *place.command(image=image)]


def _all_made(place: Place) -> str | None:
    masks = sorted(path.name for path in place.out.glob("*_mask.png"))
    return None if len(masks) == 5 else f"made {masks}"


def _is_upright(place: Place) -> str | None:
    size = Image.open(place.out / "a_mask.png").size
    return None if size == (48, 32) else f"the mask has {size}"


def _replaced(pid: int, place: Place) -> None:
    """Replace and cut the image again and again while the program runs."""
    path = place.inputs / "photo.png"
    sound = path.read_bytes()
    for n in range(60):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        path.write_bytes(sound[: n * len(sound) // 60])
        other = path.with_name("other")
        other.write_bytes(sound)
        other.replace(path)


def _huge(format: str, start: int, **options: Any) -> Case:
    """Return the case of a file of 10 GB: the start of a picture, then zeros."""

    def make(place: Place) -> list[Any]:
        content = _encoded(format, **options)[:start]
        return place.command(image=sparse(place.inputs / "a", 10 << 30, content), point="3,3")

    expected = {**accepted(), "seconds": 3}
    return Case(
        "second image", f"10 GB that starts as {format}, {start}", make, "inputs", **expected
    )


_NOISE = os.urandom
CASES = [
    *(
        _huge(format, start)
        for format in (
            *("JPEG", "GIF", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000", "TGA", "PCX", "SGI"),
            *("ICO", "DDS", "QOI", "PNG", "WEBP"),
        )
        for start in (20, 400)
    ),
    _file(
        "a JPEG with 10 MB of fill bytes",
        "a.jpg",
        lambda _: b"\xff\xd8" + b"\xff" * (10 << 20) + _encoded("JPEG")[2:],
        **accepted(),
    ),
    _file(
        "a JPEG with 700 EXIF blocks behind one that is not skipped",
        "a.jpg",
        lambda _: (
            _segments(1, 0xCC, b"")[:6] + _segments(700, 0xE1, b"Exif\0\0" + bytes(60_000))[2:]
        ),
        **accepted(),
    ),
    _file(
        "a PGM in text with 1.5 million comments",
        "a.pgm",
        lambda _: b"P2 9 9 255\n" + b"#a\n" * 1_500_000,
    ),
    _file(
        "a PBM in text with 1.5 million comments",
        "a.pbm",
        lambda _: b"P1 900 900\n1" + b"#\n" * 1_500_000,
    ),
    _sound("a GIF of 1500 frames", "a.gif", lambda _: _frames("GIF", 1500)),
    _sound("a WebP of 30 frames", "a.webp", lambda _: _frames("WEBP", 30)),
    _sound("an animated PNG", "a.png", lambda _: _frames("PNG", 20)),
    _sound("an animated AVIF", "a.avif", lambda _: _frames("AVIF", 3)),
    _sound("an MPO of 20 pictures", "a.mpo", lambda _: _frames("MPO", 20)),
    _sound("a TIFF of 100 pages", "a.tif", lambda _: _frames("TIFF", 100)),
    _sound("a TIFF of 100000 pages", "a.tif", lambda _: _pages(100_000)),
    _file("an animated PNG of no frames", "a.png", lambda _: _animated_png(0), **accepted()),
    _file(
        "an animated PNG of 2^31 - 1", "a.png", lambda _: _animated_png((1 << 31) - 1), **accepted()
    ),
    *_modes("PNG", "1", "L", "LA", "P", "RGBA", "I;16"),
    *_modes("TIFF", "1", "CMYK", "YCbCr", "LAB", "RGBX"),
    *_modes("JPEG", "L", "CMYK", "YCbCr"),
    *_modes("WEBP", "RGBA", "LA"),
    *_modes("JPEG2000", "L", "LA", "RGBA"),
    *_modes("TGA", "L", "LA", "P", "RGBA"),
    _file("a JPEG 2000 cut", "a.jp2", lambda _: _encoded("JPEG2000")[:-120]),
    _file("an AVIF cut", "a.avif", lambda _: _encoded("AVIF")[:-40]),
    _file("a WebP cut", "a.webp", lambda _: _encoded("WEBP", lossless=True)[:-40]),
    _file("a progressive JPEG cut", "a.jpg", lambda _: _encoded("JPEG", progressive=True)[:-200]),
    *_formats("DIB", "ICNS", "IM", "MSP", "PDF", "SPIDER", "XBM"),
    _file("an interlaced PNG of noise, cut", "a.png", lambda _: _interlaced(), **accepted()),
    _file(
        "a PNG with two headers",
        "a.png",
        lambda _: _png((_chunk(b"IHDR", bytes(13)),)),
        **accepted(),
    ),
    _file("a PNG with a header of 0 bytes", "a.png", lambda _: _png(header=b"")),
    _file(
        "a PNG with a palette of 1 byte",
        "a.png",
        lambda _: _png((_chunk(b"PLTE", b"x"),), colour=3),
        **accepted(),
    ),
    _file("a PNG of a palette without one", "a.png", lambda _: _png(colour=3), **accepted()),
    _file(
        "a PNG whose pixels name no palette entry",
        "a.png",
        lambda _: _png(
            (_chunk(b"PLTE", b"abc"),),
            colour=3,
            rows=zlib.compress(b"\0\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8" * 8),
        ),
        **accepted(),
    ),
    _file(
        "a PNG with transparency of 1 byte",
        "a.png",
        lambda _: _png((_chunk(b"tRNS", b"x"),)),
        **accepted(),
    ),
    _file(
        "a PNG with transparency of 1000 bytes",
        "a.png",
        lambda _: _png((_chunk(b"PLTE", bytes(9)), _chunk(b"tRNS", bytes(1000))), colour=3),
        **accepted(),
    ),
    _file("a PNG of 3 bits", "a.png", lambda _: _png(bits=3)),
    _file("a PNG of colour type 5", "a.png", lambda _: _png(colour=5)),
    _file("a PNG of one row", "a.png", lambda _: _png(rows=zlib.compress(bytes(25))), **accepted()),
    _file(
        "a PNG of rows with filter 200",
        "a.png",
        lambda _: _png(rows=zlib.compress(b"\xc8" * 200)),
        **accepted(),
    ),
    _sound(
        "a PNG with pixels of 64 MB too many",
        "a.png",
        lambda _: _png(rows=_zeros(64)),
        codes=(0, 2),
    ),
    _sound(
        "a PNG with 40 texts of 900 KB",
        "a.png",
        lambda _: _png(
            tuple(
                _chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(bytes(900_000))) for n in range(40)
            )
        ),
        codes=(0, 2),
    ),
    _sound(
        "a PNG with iTXt of 64 MB",
        "a.png",
        lambda _: _png((_chunk(b"iTXt", b"k\0\1\0\0\0" + _zeros(64)),)),
        codes=(0, 2),
    ),
    _sound(
        "a PNG with a profile of noise",
        "a.png",
        lambda _: _png((_chunk(b"iCCP", b"n\0\0" + zlib.compress(_NOISE(4000))),)),
        codes=(0, 2),
    ),
    _sound(
        "a PNG with physical size 0",
        "a.png",
        lambda _: _png((_chunk(b"pHYs", bytes(9)),)),
        codes=(0, 2),
    ),
    _sound(
        "a PNG with an EXIF of 0 bytes",
        "a.png",
        lambda _: _png((_chunk(b"eXIf", b""),)),
        codes=(0, 2),
    ),
    _sound(
        "a PNG with gAMA of 1 byte", "a.png", lambda _: _png((_chunk(b"gAMA", b"x"),)), codes=(0, 2)
    ),
    _sound(
        "a PNG with a chunk of a name with escapes",
        "a.png",
        lambda _: _png((_chunk(b"\x1b[2J", b"x"),)),
        codes=(0, 2),
    ),
    _sound(
        "an orientation of 65535", "a.jpg", _orientation(3, 1, b"\xff\xff\0\0"), after=_is_upright
    ),
    _sound("an orientation of text", "a.jpg", _orientation(2, 4, b"six\0"), after=_is_upright),
    _sound(
        "an orientation of 2^32 numbers",
        "a.jpg",
        _orientation(3, 0xFFFFFFFF, bytes(4)),
        after=_is_upright,
    ),
    _sound("an orientation of two numbers", "a.jpg", _orientation(3, 2, b"\6\0\6\0"), codes=(0, 2)),
    _sound(
        "an orientation that is a fraction at no place",
        "a.jpg",
        _orientation(5, 1, b"\xff\xff\xff\xff"),
        after=_is_upright,
    ),
    _sound(
        "an orientation that is a float NaN",
        "a.jpg",
        _orientation(11, 1, b"\0\0\xc0\x7f"),
        after=_is_upright,
    ),
    _sound(
        "an EXIF of noise",
        "a.jpg",
        lambda _: _encoded("JPEG", exif=b"Exif\0\0" + _NOISE(60_000)),
        codes=(0, 2),
    ),
    _sound(
        "an EXIF whose directory holds itself",
        "a.jpg",
        lambda _: _encoded(
            "JPEG", exif=_exif((0x8769, 4, 1, b"\x08\0\0\0"), (0x8825, 4, 1, b"\x08\0\0\0"))
        ),
    ),
    _sound("a JPEG with 20000 empty comments", "a.jpg", lambda _: _segments(20_000, 0xFE, b"")),
    _sound(
        "a JPEG with 700 EXIF blocks of 64 KB",
        "a.jpg",
        lambda _: _segments(700, 0xE1, b"Exif\0\0" + bytes(65_000)),
        codes=(0, 2),
        mebibytes=300,
    ),
    _sound(
        "a JPEG with 500 profile parts of 255",
        "a.jpg",
        lambda _: _segments(500, 0xE2, b"ICC_PROFILE\0\x07\xff" + bytes(9000)),
        codes=(0, 2),
    ),
    _sound(
        "a JPEG with a Photoshop block of noise",
        "a.jpg",
        lambda _: _segments(50, 0xED, b"Photoshop 3.0\0" + b"8BIM" + _NOISE(4000)),
        codes=(0, 2),
    ),
    _sound(
        "a JPEG with XMP of 10^5 brackets",
        "a.jpg",
        lambda _: _segments(1, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"<a>" * 20_000),
        codes=(0, 2),
    ),
    _sound(
        "a JPEG with an MPF block of noise",
        "a.jpg",
        lambda _: _segments(1, 0xE2, b"MPF\0" + b"II*\0\x08\0\0\0" + _NOISE(500)),
        codes=(0, 2),
    ),
    _file(
        "a JPEG of 12 bits",
        "a.jpg",
        lambda _: _encoded("JPEG").replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        **accepted(),
    ),
    _file(
        "a lossless JPEG",
        "a.jpg",
        lambda _: _encoded("JPEG").replace(b"\xff\xc0", b"\xff\xc3"),
        **accepted(),
    ),
    _file(
        "a JPEG of 0 rows",
        "a.jpg",
        lambda _: _encoded("JPEG").replace(b"\x00\x20\x00\x30", b"\x00\x00\x00\x30"),
        **accepted(),
    ),
    _file(
        "a progressive JPEG of 3000 scans",
        "a.jpg",
        lambda _: (
            _encoded("JPEG", progressive=True)[:-2]
            + (b"\xff\xda\x00\x08\x01\x01\x00\x01\x05\x00" + b"\x55\x55") * 3000
            + b"\xff\xd9"
        ),
        **accepted(),
    ),
    _file("a TIFF with 0 rows a strip", "a.tif", lambda _: _tiff(t278=(4, 1, 0)), **accepted()),
    _file("a TIFF of width 0", "a.tif", lambda _: _tiff(t256=(3, 1, 0))),
    _file("a TIFF of 65535 samples", "a.tif", lambda _: _tiff(t277=(3, 1, 65_535))),
    _file("a TIFF with 65535 bits", "a.tif", lambda _: _tiff(t258=(3, 65_535, 8)), **accepted()),
    _file(
        "a TIFF of tiles of 0",
        "a.tif",
        lambda _: _tiff(t322=(3, 1, 0), t323=(3, 1, 0), t324=(4, 1, 8)),
        **accepted(),
    ),
    _file(
        "a TIFF of 2^31 tiles",
        "a.tif",
        lambda _: _tiff(t322=(4, 1, 1), t323=(4, 1, 1), t324=(4, 0x7FFFFFFF, 8)),
        **accepted(),
    ),
    _file("a TIFF whose directories are one", "a.tif", lambda _: _subdirectories(), **accepted()),
    _file("a BigTIFF of 2^60 entries", "a.tif", lambda _: _big_tiff_loop()),
    _file("a TIFF of LZW noise", "a.tif", lambda _: _tiff(t259=(3, 1, 5)), **accepted()),
    _file("a TIFF of deflated noise", "a.tif", lambda _: _tiff(t259=(3, 1, 8)), **accepted()),
    _file("a TIFF of JPEG noise", "a.tif", lambda _: _tiff(t259=(3, 1, 7)), **accepted()),
    _file("a TIFF of old JPEG noise", "a.tif", lambda _: _tiff(t259=(3, 1, 6)), **accepted()),
    _file(
        "a TIFF of fax noise",
        "a.tif",
        lambda _: _tiff(t258=(3, 1, 1), t259=(3, 1, 4)),
        **accepted(),
    ),
    _file("a TIFF of a byte order 2", "a.tif", lambda _: _tiff(t266=(3, 1, 2)), **accepted()),
    _file(
        "a TIFF that inverts by 65535", "a.tif", lambda _: _tiff(t262=(3, 1, 65_535)), **accepted()
    ),
    _file("a TIFF of a range of NaN", "a.tif", lambda _: _deep_tiff(t280=0, t281=0), **accepted()),
    _file(
        "a TIFF of a resolution of 1 / 0", "a.tif", lambda _: _deep_tiff(t282=1e-300), **accepted()
    ),
    _sound(
        "an ICO of many sizes",
        "a.ico",
        lambda _: _encoded("ICO", sizes=[(n, n) for n in range(8, 32)]),
    ),
    _file("an ICO of no pictures", "a.ico", lambda _: _ico([])),
    _file("an ICO that holds itself", "a.ico", lambda _: _ico([(100, 0)])),
    _file("an ICO at 2^32", "a.ico", lambda _: _ico([(0xFFFFFFFF, 0xFFFFFFFF)])),
    _file("a CUR of no pictures", "a.cur", lambda _: b"\0\0\2\0\0\0"),
    _file(
        "a BMP of 0 planes and 3 bits",
        "a.bmp",
        lambda _: _encoded("BMP")[:26] + b"\0\0\3\0" + _encoded("BMP")[30:],
        **accepted(),
    ),
    _file(
        "a BMP with a palette of 2^31",
        "a.bmp",
        lambda _: _encoded("BMP", "P")[:46] + b"\xff\xff\xff\x7f" + _encoded("BMP", "P")[50:],
        **accepted(),
    ),
    _file(
        "a BMP with pixels at 2^32",
        "a.bmp",
        lambda _: _encoded("BMP")[:10] + b"\xff\xff\xff\xff" + _encoded("BMP")[14:],
        **accepted(),
    ),
    _file("a PPM in text without pixels", "a.pbm", lambda _: b"P1 48 32\n"),
    _file(
        "a PPM in text of a number of a million digits",
        "a.ppm",
        lambda _: b"P3 8 8 255\n" + b"9" * 1_000_000,
    ),
    _file("a PPM of maximum 10^9", "a.ppm", lambda _: b"P6 8 8 1000000000\n" + bytes(400)),
    _sound(
        "a PPM of maximum 3", "a.ppm", lambda _: b"P6 8 8 3\n" + bytes(192) + b"more", codes=(0, 2)
    ),
    _file(
        "a PAM",
        "a.pam",
        lambda _: (
            b"P7\nWIDTH 8\nHEIGHT 8\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" + bytes(192)
        ),
        **accepted(),
    ),
    _file("a QOI of 6 bytes", "a.qoi", lambda _: b"qoif\0\0"),
    _file(
        "a QOI without pixels", "a.qoi", lambda _: b"qoif\0\0\0\x08\0\0\0\x08\x03\0", **accepted()
    ),
    _file(
        "a QOI that refers to no pixel",
        "a.qoi",
        lambda _: b"qoif\0\0\0\x08\0\0\0\x08\x03\0" + b"\x05" * 64,
        **accepted(),
    ),
    _file(
        "a PSD of 65535 layers",
        "a.psd",
        lambda _: (
            b"8BPS\0\1"
            + bytes(6)
            + b"\0\3"
            + struct.pack(">IIHH", 8, 8, 8, 3)
            + bytes(8)
            + struct.pack(">IIh", 60, 50, 32_767)
            + bytes(90)
        ),
        **accepted(),
    ),
    _file(
        "a PSD of a colour mode 77",
        "a.psd",
        lambda _: b"8BPS\0\1" + bytes(6) + b"\0\3" + struct.pack(">IIHH", 8, 8, 8, 77) + bytes(200),
    ),
    _file(
        "an SGI of runs of noise",
        "a.sgi",
        lambda _: b"\x01\xda\x01\x01\0\3\0\x08\0\x08\0\3" + bytes(500) + b"\xff" * 200,
        **accepted(),
    ),
    _file("a DDS of noise", "a.dds", lambda _: _encoded("DDS")[:76] + _NOISE(60), **accepted()),
    _file("a Photo CD", "a.pcd", lambda _: bytes(2048) + b"PCD_" + bytes(3000)),
    _file(
        "a FLI of 65535 frames",
        "a.fli",
        lambda _: struct.pack("<IHHHHH", 200, 0xAF11, 65_535, 8, 8, 8) + bytes(200),
    ),
    _file(
        "an XPM of 10^6 colours",
        "a.xpm",
        lambda _: (
            b'/* XPM */\nstatic char *x[] = {\n"8 8 1000000 4",\n' + b'"aaaa c #000000",\n' * 1000
        ),
    ),
    _file(
        "a GIF without its palette",
        "a.gif",
        lambda _: b"GIF89a\x08\0\x08\0\0\0\0,\0\0\0\0\x08\0\x08\0\0\x08\x01\0\0;",
        **accepted(),
    ),
    _file(
        "a GIF of codes of 255 bits",
        "a.gif",
        lambda _: b"GIF89a\x08\0\x08\0\0\0\0,\0\0\0\0\x08\0\x08\0\0\xff\x01\0\0;",
        **accepted(),
    ),
    _file(
        "a GIF with 50000 comments",
        "a.gif",
        lambda _: b"GIF89a\x08\0\x08\0\0\0\0" + b"!\xfe\x01a\0" * 50_000 + _encoded("GIF")[13:],
        **accepted(),
    ),
    _file(
        "a GIF whose frame lies outside",
        "a.gif",
        lambda _: b"GIF89a\x08\0\x08\0\0\0\0,\xf0\xff\xf0\xff\x08\0\x08\0\0\x08\x02\0\x01\0;",
        **accepted(),
    ),
    _file("a compressed PNG", "a.png", lambda _: gzip.compress(_encoded("PNG"))),
    _file("a PNG in xz", "a.png", lambda _: lzma.compress(_encoded("PNG"))),
    _file("an array of numpy", "a.png", lambda _: b"\x93NUMPY\1\0v\0{'descr': '|O'}" + bytes(90)),
    _sound(
        "a PNG with a shell script behind it",
        "a.png",
        lambda _: _encoded("PNG") + b"\n#!/bin/sh\ntouch witness\n",
    ),
    _named("a name of format fields", "%s{0.__class__}.png"),
    _named("a name of a bracket of Rich", "[red]x[bold].png"),
    _named("a name of a star", "*?.png"),
    _named("a name of a space and a dot", " . .png"),
    _named("a name without a suffix", "picture"),
    _named("a name of only a suffix", ".png"),
    _named("a name that ends in mask", "a_mask.png"),
    _named("a name of right-to-left letters", "\u202egnp.exe.png"),
    _in_cwd("a name of a dash, without --", "-rf.png", "", "--help", codes=(2,)),
    _in_cwd("a name of a dash, behind --", "-rf.png", "--", codes=(0,)),
    Case(
        "second image",
        "one image four times, and one of the same stem",
        _again,
        codes=(0,),
        after=_all_made,
    ),
    Case(
        "second image",
        "an image that changes while it is read",
        lambda place: place.command(),
        "inputs",
        during=_replaced,
        changes=("inputs",),
        **accepted(),
    ),
    *(
        _file(f"a file of {size} bytes", "a.png", lambda _, n=size: b"\x89PNG\r\n\x1a\n"[:n])
        for size in (1, 2, 4, 8)
    ),
    _file("a file of 2 MB of line feeds", "a.png", lambda _: b"\n" * (2 << 20)),
]
