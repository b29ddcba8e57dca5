"""Find the images that arguments name: files, folders, patterns, and `-` for standard input."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from glesam_runtime.errors import InputError
from glesam_runtime.input_paths import STANDARD_INPUT, exists, read_standard_input, resolved
from glesam_runtime.limits import IMAGES, STDIN_BYTES, check_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".gif", ".ppm", ".pgm", ".pbm"),
        *(".pnm", ".webp", ".tif", ".tiff", ".avif", ".heic", ".heif", ".mpo", ".jp2", ".j2k"),
        *(".jpx", ".tga", ".pcx", ".sgi", ".ico", ".dds", ".qoi", ".psd"),
    )
)
"""The suffixes of the formats that `image_file` opens, in small letters."""

_WILDCARD = re.compile(r"[*?[]")
_RESULT = re.compile(
    r"(?P<stem>.+)_(mask(_[0-9]+)?|overlay|instances|instances_colours)\.png",
    re.IGNORECASE,
)
"""The names that `output_files` gives to the results of an image."""


@dataclass(frozen=True)
class InputImage:
    """An image that an argument names."""

    path: Path
    """The file, or `stdin`."""
    content: bytes | None = field(default=None, repr=False)
    """The bytes of an image from standard input, which has no file."""
    problem: str | None = None
    """Why the argument names no image; `read` raises it."""

    def early_problem(self) -> str | None:
        """Return why there is no image, None if there is a file or content."""
        if self.problem or self.content is not None or exists(self.path):
            return self.problem
        return f"{self.path}: no such file"

    def read(self, depth: int | str) -> tuple[NDArray[np.uint8], str | None]:
        """Return the image [H, W, 3] and a note as `image_file.read_image_with_note` does.

        Raises:
            InputError: the image cannot be read, or the argument names none.
        """
        if self.problem:
            raise InputError(self.problem)
        from glesam_runtime.image_file import read_image_with_note

        return read_image_with_note(self.path, depth, self.content)

    def pixels(self) -> int:
        """Return the number of pixels, or 0 if `read` would raise."""
        from glesam_runtime.image_file import pixels_of

        return 0 if self.problem else pixels_of(self.path, self.content)

    def size(self, limited: bool = True) -> tuple[int, int] | None:
        """Return (height, width) by the file's header; None if only decoding can tell.

        Args:
            limited: whether an image that is too large to be read whole is refused.

        Raises:
            InputError: the image is in no known format, or is too large.
        """
        from glesam_runtime.image_file import open_picture, upright_size

        try:
            with open_picture(self.path, self.content) as image:
                height, width = upright_size(image)
        except InputError:
            if not limited:  # it may be a TIFF that only rasterio reads
                return None
            self.read("auto")  # says more, such as that the file is empty
            raise
        except Exception:  # noqa: BLE001 - Pillow raises many types, and `read` reports the error
            return None
        if limited:
            check_picture(width, height, str(self.path))
        return height, width


def find_images(arguments: Sequence[str], recursive: bool = False) -> list[InputImage]:
    """Return the images that arguments name, in the order of the arguments.

    - A file is an image, whatever its name. A folder names the files in it that have an image
      suffix. A pattern (`*`, `?`, `[...]`, `**`) names the files that match it. `-` is one image
      from standard input, which is read here.
    - The images of a folder or a pattern are sorted by name, with numbers by their value. Hidden
      files are left out, as are results of an earlier run that lie among them, and images that an
      argument names as a file.
    - An argument that names no image is returned with its problem, so that the others are worked
      on.

    Args:
        arguments: the arguments.
        recursive: whether a folder also names the images of its subfolders.

    Raises:
        InputError: standard input is named twice or cannot be read, or there are too many images.
    """
    if sum(argument in STANDARD_INPUT for argument in arguments) > 1:
        raise InputError("-: given twice, but standard input holds one image")
    listed = {argument: _listed(argument, recursive) for argument in dict.fromkeys(arguments)}
    seen = {resolved(Path(argument)) for argument, files in listed.items() if files is None}
    images: list[InputImage] = []
    for argument in arguments:
        files = listed[argument]
        if argument in STANDARD_INPUT:
            content = read_standard_input(argument, STDIN_BYTES, "an image")
            images.append(InputImage(Path("stdin"), content))
        elif files is None:
            images.append(InputImage(Path(argument)))
        elif isinstance(files, str):
            images.append(InputImage(Path(argument), problem=files))
        else:
            for file in files:
                place = resolved(file)
                if place not in seen:
                    seen.add(place)
                    images.append(InputImage(file))
    return images


def _listed(argument: str, recursive: bool) -> list[Path] | str | None:
    """Return the images of a folder or pattern, its problem, or None for any other argument."""
    path = Path(argument)
    is_pattern = _WILDCARD.search(argument) is not None
    if argument in STANDARD_INPUT:
        return None
    if not argument:
        return "an image argument is empty; name a file, a folder or a pattern"
    if "\0" in argument:
        return f"{argument}: holds a null character, which no file's name has"
    try:
        if exists(path) and path.is_dir():
            found = _in_folder(path, recursive)
        elif is_pattern and not exists(path):
            found = _matching(argument)
        else:
            return None
        files = _sorted(_limited(found, argument))
    except (OSError, ValueError) as error:  # ValueError: not a pattern, such as a**b
        return f"{argument}: cannot be searched ({getattr(error, 'strerror', None) or error})"
    files = _without_results(files)
    if files:
        return files
    if is_pattern and not exists(path):
        return f"{argument}: no image matches this pattern"
    hint = "" if recursive else "; --recursive also searches its subfolders"
    return f"{argument}: a folder without images{hint}"


def _in_folder(folder: Path, recursive: bool) -> Iterator[Path]:
    """Yield the images in a folder, and with `recursive` those in its subfolders."""

    def fail(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        yield from (Path(place, name) for name in names if _is_image_name(name))


def _matching(pattern: str) -> Iterator[Path]:
    """Yield the files that match a pattern. Links to folders are not followed by `**`.

    A pattern whose last part says no suffix, such as `*`, names files with an image suffix only.
    """
    parts = Path(pattern).parts
    first = next(index for index, part in enumerate(parts) if _WILDCARD.search(part))
    base, rest = Path(*parts[:first]), list(parts[first:])
    if rest[-1] == "**":
        rest.append("*")
    suffix = Path(rest[-1]).suffix
    by_suffix = suffix == "" or _WILDCARD.search(suffix) is not None
    hidden = any(part.startswith(".") for part in rest)
    for path in base.glob("/".join(rest)):
        inside = path.relative_to(base).parts
        if path.is_dir() or (any(part.startswith(".") for part in inside) and not hidden):
            continue
        if not by_suffix or _is_image_name(path.name):
            yield path


def _is_image_name(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES


def _limited(files: Iterable[Path], argument: str) -> list[Path]:
    found: list[Path] = []
    for file in files:
        found.append(file)
        if len(found) > IMAGES.value:
            IMAGES.check(len(found), f"{argument}: names {len(found)} images")
    return found


def _sorted(files: Iterable[Path]) -> list[Path]:
    """Sort by the parts of the path, with numbers by their value: a2.png before a10.png."""

    def key(file: Path) -> tuple[list[list[str | int]], str]:
        return [_natural(part) for part in file.parts], str(file)

    return sorted(files, key=key)


def _natural(name: str) -> list[str | int]:
    parts = re.split("([0-9]+)", name.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _without_results(files: Sequence[Path]) -> list[Path]:
    """Leave out the masks, maps and overlays of images that are among the files themselves."""
    stems = {file.stem.lower() for file in files}

    def is_result(file: Path) -> bool:
        match = _RESULT.fullmatch(file.name)
        stem = match["stem"].lower() if match else ""
        return stem in stems or re.sub("-[0-9]+$", "", stem) in stems

    return [file for file in files if not is_result(file)]
