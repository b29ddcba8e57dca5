"""Run the model: read, encode, decode and search in worker threads, each lane on its own share."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from glesam_runtime import chain
from glesam_runtime.backends.base import ForwardingEngine
from glesam_runtime.enhancing import Enhancing
from glesam_runtime.errors import BackendError, InputError
from glesam_runtime.image import preprocess
from glesam_runtime.image_file import open_picture, read_image_with_note
from glesam_runtime.prompts import check_prompts
from glesam_serving.problems import ProblemError
from glesam_serving.server.images import EncodedImage
from glesam_serving.server.turns import Turns

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glesam_runtime.backends.base import Engine, Value
    from glesam_runtime.enhancing import Mode
    from glesam_runtime.everything.crops import Crop
    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.everything.search import Found
    from glesam_runtime.image import Preprocessed
    from glesam_runtime.manifest import StageName
    from glesam_runtime.predictor import GleSamPredictor
    from glesam_runtime.prompts import PromptBatch

_FILE = Path("image")
"""Name of an uploaded image in messages."""


@dataclass(frozen=True)
class ReadImage:
    """A decoded image, ready to be encoded."""

    prepared: Preprocessed
    stored: tuple[int, int]
    note: str | None
    seconds: dict[str, float]


class StoppedError(Exception):
    """Raised in a worker to end work that nobody waits for any more."""


class Model:
    """The loaded bundle and its worker threads. All methods block; call them in a pool of it."""

    def __init__(self, predictor: GleSamPredictor, streams: int) -> None:
        """Share a predictor's graphs between the lanes.

        Args:
            predictor: a predictor whose engine was loaded with as many streams.
            streams: number of images encoded at the same time.
        """
        self.predictor, self.enhancing = predictor, predictor.enhancing
        self.bundle = predictor.bundle
        self.turns: Turns | None = None
        try:
            shares = [predictor.share() for _ in range(streams + 1)]
        except BackendError:
            # A compiled engine runs one call at a time, and overwrites what it returned before.
            self.turns, streams, shares = Turns(), 1, [predictor, predictor]
        self.streams = streams
        self._encoders: SimpleQueue[Engine] = SimpleQueue()
        for share in shares[1:]:
            self._encoders.put(share.engine)
        self._decoder, self._searcher = predictor, shares[0]
        self.prompt_batch: int = predictor.prompt_batch
        self.joins = _is_exact_together(predictor)
        """Whether prompts of several requests may share a decoder call: only if each then gets the
        bits that it gets alone."""
        self.reading = ThreadPoolExecutor(2, "read")
        self.encoding = ThreadPoolExecutor(streams, "encode")
        self.decoding = ThreadPoolExecutor(1, "decode")
        self.finishing = ThreadPoolExecutor(2, "finish")
        self.searching = ThreadPoolExecutor(1, "search")

    def close(self) -> None:
        """End the worker threads when their current calls have ended."""
        for pool in (
            self.reading,
            self.encoding,
            self.decoding,
            self.finishing,
            self.searching,
        ):
            pool.shutdown(wait=False, cancel_futures=True)

    def read(self, content: bytes, max_pixels: int) -> ReadImage:
        """Decode and preprocess an image file.

        Raises:
            InputError: it is not an image.
            ProblemError: it has too many pixels.
        """
        start = time.perf_counter()
        stored = check_pixels(content, max_pixels)
        pixels, note = read_image_with_note(_FILE, content=content)
        read = time.perf_counter() - start
        start = time.perf_counter()
        prepared = preprocess(pixels, self.bundle.manifest.preprocessing)
        seconds = {"read": read, "preprocess": time.perf_counter() - start}
        return ReadImage(prepared, stored, note, seconds)

    def encode(
        self,
        name: str,
        content: bytes,
        read: ReadImage,
        mode: Mode,
        timestep: int | None = None,
    ) -> EncodedImage:
        """Encode an image, and enhance it if the mode says so, at a timestep of several."""
        enhancing, geometry = Enhancing.of(self.bundle, mode), read.prepared.geometry
        engine, manifest = self._encoders.get(), self.bundle.manifest
        seconds = dict(read.seconds)
        try:
            start = time.perf_counter()
            with Turns.of(self.turns, urgent=False):
                features = chain.encode(engine, manifest, read.prepared.tensor)
                features = self._kept(engine, features)
            seconds["encoder"] = time.perf_counter() - start
            start = time.perf_counter()
            with Turns.of(self.turns, urgent=False):
                branch = enhancing.decide(engine, features, geometry)
            if enhancing.gate is not None:
                seconds["gate"] = time.perf_counter() - start
            if branch.enhanced:
                start = time.perf_counter()
                with Turns.of(self.turns, urgent=False):
                    enhanced = chain.enhance(engine, manifest, features, timestep)
                    features = self._kept(engine, enhanced)
                seconds["enhancer"] = time.perf_counter() - start
        finally:
            self._encoders.put(engine)
        return EncodedImage(
            name,
            content,
            features,
            sum(4 * int(np.prod(value.shape)) for value in features.values()),
            geometry,
            read.stored,
            mode,
            branch,
            read.note,
            seconds,
            timestep=timestep,
        )

    def _kept(self, engine: Engine, features: chain.Features) -> chain.Features:
        """Return features that later runs do not overwrite."""
        if self.turns is None:
            return features
        return {name: np.array(engine.to_host(value)) for name, value in features.items()}

    def decode(
        self, image: EncodedImage, prompts: PromptBatch, multimask: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return logits [B, C, S/4, S/4] and predicted IoU [B, C]. One thread calls it."""
        with Turns.of(self.turns, urgent=True):
            self._decoder.set_features(image.geometry, image.features, image.branch)
            try:
                return self._decoder.decode(prompts, multimask)
            finally:
                self._decoder.reset_image()

    def search(
        self,
        image: EncodedImage,
        parameters: Parameters,
        decoded: Callable[[int], None],
        max_pixels: int,
    ) -> list[Found]:
        """Find all masks of an image. One thread calls it.

        The whole image is in the cache. Only its crops are encoded, for which the file is read.

        Args:
            image: the image.
            parameters: how to search.
            decoded: called with the number of prompts of each decoder run; it may raise.
            max_pixels: maximum number of pixels of the image.
        """
        from glesam_runtime.everything.search import search_crops

        engine = _WatchedEngine(self._searcher.engine, decoded, self.turns)
        searcher = self._searcher.with_engine(engine)
        searcher.timestep = image.timestep
        searcher.enhancing = Enhancing.of(self.bundle, image.mode)
        pixels: NDArray[np.uint8] | None = None

        def set_crop(crop: Crop) -> None:
            nonlocal pixels
            if crop.layer == 0:
                searcher.set_features(image.geometry, image.features, image.branch)
                return
            if pixels is None:
                pixels = read_pixels(image.content, max_pixels)
            x0, y0, x1, y1 = crop.box
            searcher.set_image(np.ascontiguousarray(pixels[y0:y1, x0:x1]))

        return search_crops(searcher, *image.geometry.original, set_crop, parameters)


def _is_exact_together(predictor: GleSamPredictor) -> bool:
    """Return whether a prompt's logits are the same bits alone and beside others.

    Some engines multiply matrices of one prompt and of several in different orders. The runs also
    warm the engine up, so that the first user does not wait for it.
    """
    from glesam_runtime.demo import sample_image

    predictor.set_image(sample_image())
    count = min(3, predictor.prompt_batch)
    points = np.asarray([[[245, 300]], [[445, 135]], [[60, 60]]])[:count]
    labels = np.ones((count, 1), np.float32)
    batches = [
        check_prompts(predictor.geometry, points[part], labels[part])
        for part in (slice(None), *(slice(at, at + 1) for at in range(count)))
    ]
    together, *alone = (predictor.decode(batch)[0] for batch in batches)
    predictor.reset_image()
    return np.array_equal(together, np.concatenate(alone))


def check_pixels(content: bytes, max_pixels: int) -> tuple[int, int]:
    """Return the stored (height, width) of an image file, from its header.

    Raises:
        InputError: it is not an image.
        ProblemError: it has more than `max_pixels`.
    """
    if not content:
        raise InputError("image: is empty; send the bytes of an image file")
    try:
        with open_picture(_FILE, content) as opened:
            width, height = opened.size
    except InputError:
        raise
    except Exception as error:  # decoders raise many types for malformed bytes
        raise InputError(f"image: cannot be read as an image ({error})") from error
    if width * height > max_pixels:
        raise ProblemError(
            413,
            f"image: {width} x {height} pixels, more than this server's limit of "
            f"{max_pixels >> 20} megapixels; send a smaller version",
        )
    return height, width


def read_pixels(content: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Return the pixels of an image file, uint8 [H, W, 3], RGB."""
    check_pixels(content, max_pixels)
    return read_image_with_note(_FILE, content=content)[0]


def png_of(pixels: NDArray[np.uint8]) -> bytes:
    """Return an image [H, W] or [H, W, 3] as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@dataclass(frozen=True)
class _WatchedEngine(ForwardingEngine):
    """An engine that reports each run of the decoder."""

    decoded: Callable[[int], None]
    turns: Turns | None

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        self.decoded(0)
        with Turns.of(self.turns, urgent=False):
            outputs = super().run(stage, inputs)
            if self.turns is not None:
                outputs = {n: np.array(self.engine.to_host(v)) for n, v in outputs.items()}
        if stage == "decoder":
            self.decoded(inputs["point_coords"].shape[0])
        return outputs
