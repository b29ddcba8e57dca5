"""Say what an image file is that Pillow cannot open."""

from __future__ import annotations

from typing import BinaryIO

from PIL import TiffImagePlugin

_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _BANDS, _SAMPLE_FORMAT = 258, 277, 339
_SAMPLES = {1: "unsigned", 2: "signed", 3: "float", 5: "complex integer", 6: "complex"}
_REMEDY = "convert it to PNG or JPEG"


def is_heic(start: bytes) -> bool:
    """Return whether a file with these first 12 bytes is HEIC or HEIF."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS


def explain(content: BinaryIO) -> str:
    """Return what is wrong with a file that is in none of the known formats, and what to do."""
    content.seek(0)
    start = content.read(16)
    if is_heic(start):
        return "a HEIC image; install pillow-heif (pip install pillow-heif), or " + _REMEDY
    if start[4:12] in (b"ftypavif", b"ftypavis"):
        return "an AVIF image, which this version of Pillow cannot read; update Pillow, or " + (
            _REMEDY
        )
    if start[:4] in _TIFF_STARTS:
        samples = _tiff_samples(content, start)
        if samples is not None:
            return (
                f"a TIFF with {samples}, which cannot be read; save it as gray or RGB with 8 or 16 "
                "bits a sample"
            )
    return "not an image in a known format; " + _REMEDY


def _tiff_samples(content: BinaryIO, start: bytes) -> str | None:
    """Return the bands and samples of a TIFF, or None if its tags cannot be read."""
    is_big = 43 in start[2:4]
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(start if is_big else start[:8])
        content.seek(tags.next)
        tags.load(content)
        bits = tags.get(_BITS, (1,))
        formats = tags.get(_SAMPLE_FORMAT, (1,))
        bands = int(tags.get(_BANDS, 1))
        kind = _SAMPLES.get(int(formats[0]), "undefined")
        width = " and ".join(str(int(one)) for one in sorted(set(bits)))
    except Exception:  # noqa: BLE001 - Pillow raises many types for malformed tags
        return None
    return f"{bands} {'band' if bands == 1 else 'bands'} of {width}-bit {kind} samples"
