"""Do the work of each stage on one chunk: read, encode, decode and write. Nothing here knows Ray.

A chunk travels between the stages as bytes. An image that fails becomes a `Failure` in its place,
and the others continue.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from glesam_runtime.errors import GlesamError, InputError
from glesam_runtime.everything.parameters import Parameters
from glesam_runtime.everything.segment_file import EverythingSegmentation
from glesam_runtime.image import Preprocessed
from glesam_runtime.input_images import InputImage
from glesam_runtime.manifest import Manifest
from glesam_runtime.output_files import OutputFiles
from glesam_runtime.results import ImageResult
from glesam_runtime.segment_file import PromptedSegmentation
from glesam_serving.batch.job import Job
from glesam_serving.batch.output_rows import mask_rows, requests_of, write_pngs
from glesam_serving.batch.parts import Failure, commit
from glesam_serving.batch.plan import Plan
from glesam_serving.batch.rows import Row
from glesam_serving.batch.started import Started
from glesam_serving.batch.writing_errors import remedy

if TYPE_CHECKING:
    from glesam_runtime.enhancing import Branch
    from glesam_runtime.image import Geometry
    from glesam_runtime.predictor import GleSamPredictor

_NO_PIXELS = np.zeros((1, 1, 3), np.uint8)
_NO_TENSOR = np.zeros((1, 3, 0, 0), np.float32)


@dataclass(frozen=True)
class Setup:
    """What every stage of a job needs; it travels to the workers once."""

    out: Path
    job: Job
    plan: Plan
    manifest: Manifest

    def started(self, stage: str, chunk: int) -> Started:
        """Note that a stage starts a chunk."""
        return Started(self.out / "started", stage, chunk)


@dataclass
class Item:
    """An image on its way through the stages. Each stage drops what later ones do not need."""

    number: int
    """Its row in the job."""
    row: Row
    prepared: Any = None
    """What `prepare` of the work returns, then what `infer` returns."""
    features: dict[str, np.ndarray] | None = None
    branch: Branch | None = None
    """Whether the image was enhanced."""
    result: ImageResult | None = None
    failure: Failure | None = None


@dataclass
class Chunk:
    """The images of a chunk, and the seconds that each stage took."""

    number: int
    items: list[Item]
    seconds: dict[str, float] = field(default_factory=dict)
    encoded_at: float = 0.0
    """The time of day at which its encoding started."""

    def packed(self) -> bytes:
        """Return the chunk as bytes."""
        return pickle.dumps(self, protocol=5)


def unpack(content: bytes) -> Chunk:
    """Return the chunk that `Chunk.packed` made; a worker of the same job wrote it."""
    chunk: Chunk = pickle.loads(content)  # noqa: S301 - written by this job's own workers
    return chunk


def _each(setup: Setup, chunk: Chunk, stage: str, works: Sequence[Callable[[Item], None]]) -> Chunk:
    """Run a stage's work on each image that has not failed.

    Args:
        setup: the job.
        chunk: the images.
        stage: the stage's name.
        works: one function for each thread that works at the same time.
    """
    start = time.perf_counter()
    try:
        _work(setup.started(stage, chunk.number), chunk, works)
    except OSError as error:  # of the note; those of images are failures
        raise InputError(f"{setup.out}: {remedy(error)}") from error
    chunk.seconds[stage] = time.perf_counter() - start
    return chunk


def _work(note: Started, chunk: Chunk, works: Sequence[Callable[[Item], None]]) -> None:
    items = [item for item in chunk.items if item.failure is None]
    # A chunk that ended a process before is worked on with care: one image after another.
    if len(works) == 1 or len(items) < 2 or note.is_careful:
        for item in items:
            _run(note, works[0], item)
    else:
        free: SimpleQueue[Callable[[Item], None]] = SimpleQueue()
        for work in works:
            free.put(work)

        def run(item: Item) -> None:
            work = free.get()
            try:
                _run(note, work, item)
            finally:
                free.put(work)

        with ThreadPoolExecutor(len(works)) as pool:
            list(pool.map(run, items))
    note.done()


def _run(note: Started, work: Callable[[Item], None], item: Item) -> None:
    """Do the work of an image, or make it a failure."""
    reason = note.run(item.number, partial(_reason, work, item), str)
    if reason is not None:
        item.failure = Failure(item.number, item.row.image, reason, item.row.image_id)
        item.prepared = item.features = item.result = None


def _reason(work: Callable[[Item], None], item: Item) -> str | None:
    """Do the work of an image, and return why it failed, or None."""
    try:
        work(item)
    except GlesamError as error:
        return " ".join(str(error).split())
    except MemoryError:
        return f"{item.row.image}: not enough memory for this image"
    except OSError as error:
        return f"{item.row.image}: {error.strerror or error}"
    return None


def _segmentation(setup: Setup, row: Row) -> PromptedSegmentation | EverythingSegmentation:
    """Return the work of an image, which is that of glesam-run."""
    job = setup.job
    if job.everything is not None:
        return EverythingSegmentation(
            Parameters(**job.everything), False, frozenset(), job.depth, write=False
        )
    return PromptedSegmentation(
        setup.manifest, requests_of(row, job), job.multimask, frozenset(), job.depth, write=False
    )


def read(setup: Setup, number: int) -> Chunk:
    """Read, decode and preprocess the images of a chunk."""
    first = number * setup.job.batch_size
    rows = setup.plan.read(number)
    chunk = Chunk(number, [Item(first + index, row) for index, row in enumerate(rows)])

    def work(item: Item) -> None:
        source = InputImage(Path(item.row.image), _content(item.row))
        files = OutputFiles(source, Path(f"{item.number}"))
        made: Any = _segmentation(setup, item.row).prepare(files)
        # The file's bytes are no longer needed, and the image is only for everything-mode.
        files = OutputFiles(InputImage(source.path), files.stem)
        if setup.job.everything is None:
            made = replace(made, files=files, image=_NO_PIXELS)
        else:
            made = replace(made, files=files)
        item.prepared = made

    return _each(setup, chunk, "read", [work])


def _content(row: Row) -> bytes:
    """Return the bytes of an image file, from a disk or from an address.

    Raises:
        InputError: it cannot be read; the message names the image.
    """
    if "://" not in row.place:
        place = Path(row.place)
        if not place.is_file():
            raise InputError(f"{row.image}: no such file, or no regular one")
        try:
            return place.read_bytes()
        except OSError as error:
            raise InputError(f"{row.image}: cannot be read ({error.strerror})") from error
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(row.place)
        content: bytes = system.cat_file(path)
        return content
    except Exception as error:  # each file system raises its own types, down to missing libraries
        raise InputError(
            f"{row.image}: cannot be fetched ({type(error).__name__}: {error}); check the address "
            "and the credentials of the workers"
        ) from error


def encode(setup: Setup, predictors: Sequence[GleSamPredictor], chunk: Chunk) -> Chunk:
    """Encode and enhance the images of a chunk; in everything-mode, also find the masks."""

    def work(predictor: GleSamPredictor, item: Item) -> None:
        if setup.job.everything is not None:
            segmentation = _segmentation(setup, item.row)
            assert isinstance(segmentation, EverythingSegmentation)
            inferred = segmentation.infer(predictor, item.prepared)
            item.result = segmentation.finish(inferred, lambda: None)
            item.prepared = None
            return
        prepared = item.prepared
        predictor.set_prepared(prepared.encoded)
        item.features, item.branch = dict(predictor.get_embedding().features), predictor.branch
        geometry: Geometry = prepared.encoded.geometry
        seconds = dict(prepared.seconds)
        for step in ("encoder", "gate", "enhancer"):
            if step in predictor.timings:
                seconds[step] = predictor.timings[step]
        item.prepared = replace(
            prepared, encoded=Preprocessed(_NO_TENSOR, geometry), seconds=seconds
        )

    chunk.encoded_at = time.time()
    return _each(setup, chunk, "encode", [partial(work, each) for each in predictors])


def decode(setup: Setup, predictors: Sequence[GleSamPredictor], chunk: Chunk) -> Chunk:
    """Decode the prompts of the images of a chunk, and turn logits into masks."""

    def work(predictor: GleSamPredictor, item: Item) -> None:
        if item.result is not None:  # everything-mode is done already
            return
        segmentation = _segmentation(setup, item.row)
        assert isinstance(segmentation, PromptedSegmentation)
        assert item.features is not None
        predictor.set_features(item.prepared.encoded.geometry, item.features, item.branch)
        inferred = segmentation.decode(predictor, item.prepared)
        item.result = segmentation.finish(inferred, lambda: None)
        item.prepared = item.features = None

    return _each(setup, chunk, "decode", [partial(work, each) for each in predictors])


def write(setup: Setup, chunk: Chunk) -> dict[str, Any]:
    """Write the rows of a chunk, and return its part of the summary."""
    start = time.perf_counter()
    rows: list[dict[str, Any]] = []
    failures = [item.failure for item in chunk.items if item.failure is not None]
    for item in chunk.items:
        if item.result is not None:
            rows += mask_rows(setup.job, item.number, item.row, item.result)
            if setup.job.masks == "png":
                try:
                    write_pngs(setup.out, item.number, item.result)
                except OSError as error:
                    raise InputError(f"{setup.out / 'png'}: {remedy(error)}") from error
    commit(setup.out, chunk.number, rows, failures)
    seconds = {**chunk.seconds, "write": time.perf_counter() - start}
    return {
        "chunk": chunk.number,
        "images": len(chunk.items),
        "masks": len(rows),
        "errors": msgspec.json.encode([failure.error for failure in failures]).decode(),
        "seconds": msgspec.json.encode(seconds).decode(),
        "encoded_at": chunk.encoded_at,
    }
