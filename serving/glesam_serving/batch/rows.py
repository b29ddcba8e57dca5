"""Read the rows of a job: an image and its prompts, from folders, lists, tables and COCO files.

Rows are yielded one at a time, so a table of 100 million rows needs no more memory than a short
one. Only COCO files are read whole, because they are one JSON document, and the names in a folder
are sorted in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from glesam_runtime.errors import InputError
from glesam_runtime.input_images import find_images
from glesam_runtime.input_paths import STANDARD_INPUT
from glesam_runtime.prompt_requests import check_without_image, from_entry

_ROWS_AT_ONCE = 1024
"""Rows of a Parquet file that are in memory together."""


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """One image of a job."""

    image: str
    """The name as the input gives it; the output has it."""
    place: str
    """The absolute path or the address that workers read."""
    prompts: tuple[msgspec.Raw, ...] = ()
    """The prompts as JSON; empty if the job's own prompts apply."""
    image_id: int | None = None
    """The id of a COCO image."""
    annotations: tuple[int, ...] = ()
    """The ids of the COCO annotations that the prompts come from."""


class _CocoImage(msgspec.Struct):
    id: int
    file_name: str


class _CocoAnnotation(msgspec.Struct):
    id: int
    image_id: int
    bbox: tuple[float, float, float, float]


class _Coco(msgspec.Struct):
    images: list[_CocoImage]
    annotations: list[_CocoAnnotation]


def read_rows(arguments: Sequence[str], recursive: bool, root: Path | None) -> Iterator[Row]:
    """Yield the rows that arguments name, in their order.

    Args:
        arguments: image files, folders, patterns and addresses; `.txt` lists of images; `.jsonl`
            and `.parquet` tables of `image` and `prompts` or `boxes`; COCO files, `.json`.
        recursive: whether a folder also names the images of its subfolders.
        root: the folder of the images that tables and lists name; None is the folder of the table.

    Raises:
        InputError: a table, a list or a prompt cannot be used.
    """
    for argument in arguments:
        if argument in STANDARD_INPUT:
            raise InputError(
                f"{argument}: standard input is not read, because workers cannot see it"
            )
        suffix = Path(argument).suffix.lower()
        reader = {
            ".txt": _text,
            ".jsonl": _json_lines,
            ".ndjson": _json_lines,
            ".parquet": _parquet,
            ".json": _coco,
        }.get(suffix)
        if reader is not None:
            path = Path(argument)
            if not path.is_file():
                raise InputError(f"{path}: no such file")
            base = (root or path.parent).absolute()
            try:
                yield from reader(path, base)
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
        elif _is_address(argument):
            yield Row(argument, argument)
        else:
            for found in find_images([argument], recursive):
                if problem := found.early_problem():
                    raise InputError(problem)
                yield Row(str(found.path), str(found.path.absolute()))


def _is_address(name: str) -> bool:
    return "://" in name


def _place(name: str, base: Path) -> str:
    return name if _is_address(name) else str(base / name)


def _text(path: Path, base: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if name := line.strip("\r\n"):
                yield Row(name, _place(name, base))


def _json_lines(path: Path, base: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                entry = msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise InputError(f"{where}: not a JSON object ({error})") from error
            yield _from_entry(entry, where, base)


def _parquet(path: Path, base: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path}: not a Parquet file ({error})") from error
    names = table.schema_arrow.names
    if "image" not in names:
        raise InputError(f"{path}: has no column image; its columns are {', '.join(names)}")
    columns = [name for name in ("image", "prompts", "boxes") if name in names]
    number = 0
    for batch in table.iter_batches(_ROWS_AT_ONCE, columns=columns):
        for entry in batch.to_pylist():
            yield _from_entry(entry, f"{path}: row {number}", base)
            number += 1


def _from_entry(entry: dict[str, Any], where: str, base: Path) -> Row:
    """Read a row of a table; a value of None counts as absent, as tables have it.

    Raises:
        InputError: the image or a prompt is missing or malformed.
    """
    name = entry.get("image")
    if not isinstance(name, str) or not name:
        raise InputError(f"{where}: image is missing, or no text")
    prompts, boxes = entry.get("prompts"), entry.get("boxes")
    if prompts is not None and boxes is not None:
        raise InputError(f"{where}: has prompts and boxes; give one of them")
    if boxes is not None:
        prompts = [{"box": box} for box in _list(boxes, f"{where}: boxes")]
    listed = [] if prompts is None else _list(prompts, f"{where}: prompts")
    if prompts is not None and not listed:
        raise InputError(f"{where}: has an empty list of prompts; leave the row out")
    raws = []
    for index, prompt in enumerate(listed):
        if isinstance(prompt, dict):
            prompt = {key: value for key, value in prompt.items() if value is not None}
        raw = msgspec.Raw(msgspec.json.encode(prompt))
        check_without_image([from_entry(raw, f"{where}: prompt {index}")])
        raws.append(raw)
    return Row(name, _place(name, base), tuple(raws))


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where}: a list is needed, not {type(value).__name__}")
    return value


def _coco(path: Path, base: Path) -> Iterator[Row]:
    """Yield the images of a COCO or LVIS file that have boxes; each box becomes a prompt."""
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Coco)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a COCO file with images, annotations and boxes ({error})"
        ) from error
    by_image: dict[int, list[_CocoAnnotation]] = {}
    for annotation in document.annotations:
        by_image.setdefault(annotation.image_id, []).append(annotation)
    for image in document.images:
        own = by_image.get(image.id, [])
        if not own:
            continue
        raws = []
        for annotation in own:
            x, y, width, height = annotation.bbox
            raw = msgspec.Raw(msgspec.json.encode({"box": (x, y, x + width, y + height)}))
            check_without_image([from_entry(raw, f"{path}: annotation {annotation.id}")])
            raws.append(raw)
        ids = tuple(annotation.id for annotation in own)
        yield Row(image.file_name, _place(image.file_name, base), tuple(raws), image.id, ids)
