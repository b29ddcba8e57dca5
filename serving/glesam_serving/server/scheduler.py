"""Decide what runs next: images are encoded one a stream, and waiting prompts are joined.

All state belongs to the event loop, so it needs no locks. Inference runs in the model's threads.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from glesam_runtime.prompts import PromptBatch, join, split
from glesam_serving.problems import ProblemError, gone
from glesam_serving.server.images import EncodedImage, ImageCache
from glesam_serving.server.model import StoppedError

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray

    from glesam_runtime.enhancing import Mode
    from glesam_runtime.everything.parameters import Parameters
    from glesam_runtime.everything.search import Found
    from glesam_serving.server.metrics import Metrics
    from glesam_serving.server.model import Model

T = TypeVar("T")


@dataclass(frozen=True, eq=False, repr=False)
class Decoded(Generic[T]):
    """What the decoder said about prompts of one kind."""

    low_res: NDArray[np.float32]
    """Logits [B, C, S/4, S/4]."""
    scores: NDArray[np.float32]
    """Predicted IoU [B, C]."""
    made: T | None = None
    """What the work that was to follow returned; None if it is still to be done."""


@dataclass(eq=False, repr=False)
class _Prompts:
    """Prompts of the same kind that wait for the decoder."""

    image: EncodedImage
    batch: PromptBatch
    multimask: bool
    then: Callable[[NDArray[np.float32], NDArray[np.float32]], Any] | None
    result: asyncio.Future[Decoded[Any]]
    since: float = field(default_factory=time.perf_counter)

    @property
    def kind(self) -> tuple[int, bool, int, bool, bool]:
        """Return what prompts must share to go through the decoder in one call."""
        return (id(self.image), self.multimask, *self.batch.kind)


@dataclass(eq=False)
class _Encoding:
    """An image that is being encoded, for one or more requests."""

    task: asyncio.Task[EncodedImage]
    waiting: int = 0


class Scheduler:
    """Owns the cache, the queue and the order in which work runs."""

    def __init__(
        self, model: Model, cache: ImageCache, metrics: Metrics, queue: int, max_pixels: int
    ) -> None:
        self.model, self.cache, self.metrics = model, cache, metrics
        self._queue, self._max_pixels = queue, max_pixels
        self._taken = 0
        self._mean_seconds = 0.05
        self._encodings: dict[str, _Encoding] = {}
        self._reading = asyncio.Semaphore(2)
        self._streams = asyncio.Semaphore(model.streams)
        self._searches = asyncio.Semaphore(1)
        self._waiting: deque[_Prompts] = deque()
        self._woken = asyncio.Event()
        self._lane: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the decoder's lane; the event loop must run."""
        self._lane = asyncio.get_running_loop().create_task(self._decode_waiting())

    async def stop(self) -> None:
        """Stop the lane and release the threads."""
        if self._lane is not None:
            self._lane.cancel()
            with suppress(asyncio.CancelledError):
                await self._lane
        self.model.close()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place of the queue for one request.

        Raises:
            ProblemError: all places are taken.
        """
        if self._taken >= self._queue:
            self.metrics.rejected.labels("queue").inc()
            wait = max(1, math.ceil(self._mean_seconds * self._taken))
            raise ProblemError(
                429,
                f"the queue is full ({self._taken} running or waiting); try again in {wait} s",
                {"Retry-After": str(wait)},
            )
        self._taken += 1
        self.metrics.places.set(self._taken)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._taken -= 1
            self.metrics.places.set(self._taken)
            self._mean_seconds += 0.1 * (time.perf_counter() - start - self._mean_seconds)

    def find(self, name: str) -> EncodedImage:
        """Return an image of the cache.

        Raises:
            ProblemError: it is not there.
        """
        image = self.cache.get(name)
        if image is None:
            raise gone(name)
        return image

    async def encode(
        self, name: str, content: bytes, enhance: Mode, timestep: int | None = None
    ) -> tuple[EncodedImage, bool]:
        """Return the image of this id and whether it was in the cache; encode it if it was not.

        Requests for an image that is being encoded wait for the same result.
        """
        image = self.cache.get(name)
        if image is not None:
            self.metrics.hits.inc()
            return image, True
        self.metrics.misses.inc()
        running = self._encodings.get(name)
        if running is None:
            work = self._encode(name, content, enhance, timestep)
            task = asyncio.get_running_loop().create_task(work)
            running = self._encodings[name] = _Encoding(task)
            task.add_done_callback(lambda done: self._encoded(name, done))
        running.waiting += 1
        try:
            return await asyncio.shield(running.task), False
        finally:
            running.waiting -= 1
            if not running.waiting and not running.task.done():
                self._encodings.pop(name, None)
                running.task.cancel()

    def _encoded(self, name: str, task: asyncio.Task[EncodedImage]) -> None:
        running = self._encodings.get(name)
        if running is not None and running.task is task:
            del self._encodings[name]
        if not task.cancelled():
            task.exception()  # a request that still waits raises it

    async def _encode(
        self, name: str, content: bytes, enhance: Mode, timestep: int | None
    ) -> EncodedImage:
        start = time.perf_counter()
        async with self._reading:
            read = await self._run(self.model.reading, self.model.read, content, self._max_pixels)
        async with self._streams:
            image = await self._run(
                self.model.encoding, self.model.encode, name, content, read, enhance, timestep
            )
        worked = sum(image.seconds.values())
        image.seconds["queue"] = max(0.0, time.perf_counter() - start - worked)
        self.metrics.stages(image.seconds)
        self.cache.put(image)
        self.metrics.cache(self.cache)
        return image

    async def decode(
        self,
        image: EncodedImage,
        prompts: PromptBatch,
        multimask: bool,
        then: Callable[[NDArray[np.float32], NDArray[np.float32]], T] | None = None,
    ) -> Decoded[T]:
        """Run the decoder on prompts of one kind.

        Many prompts take several turns, so that another user's click waits for one call only.

        Args:
            image: the image.
            prompts: the prompts.
            multimask: whether each gets three masks.
            then: short work on logits and scores. The decoder's thread does it right after its
                call if nothing else waits for the decoder, which saves two changes of threads.
        """
        parts, split_up = [], list(split(prompts, self.model.prompt_batch))
        for part in split_up:
            future: asyncio.Future[Decoded[T]] = asyncio.get_running_loop().create_future()
            follows = then if len(split_up) == 1 else None
            job = _Prompts(image, part, multimask, follows, future)
            self._waiting.append(job)
            self._woken.set()
            try:
                parts.append(await future)
            finally:
                if job in self._waiting:  # the client left
                    self._waiting.remove(job)
        if len(parts) == 1:
            return parts[0]
        low_res, scores = ([getattr(p, name) for p in parts] for name in ("low_res", "scores"))
        return Decoded(np.concatenate(low_res), np.concatenate(scores))

    async def _decode_waiting(self) -> None:
        """Run the decoder for the prompt that waits longest and those that can join it."""
        while True:
            await self._woken.wait()
            while self._waiting:
                jobs = self._next_jobs()
                now = time.perf_counter()
                self.metrics.stages({"prompt_queue": max(now - job.since for job in jobs)})
                await self._decode_together(jobs)
            self._woken.clear()

    def _next_jobs(self) -> list[_Prompts]:
        first = self._waiting.popleft()
        jobs, room = [first], self.model.prompt_batch - first.batch.size
        for job in list(self._waiting) if self.model.joins else ():
            if job.kind == first.kind and job.batch.size <= room:
                self._waiting.remove(job)
                jobs.append(job)
                room -= job.batch.size
        return jobs

    async def _decode_together(self, jobs: list[_Prompts]) -> None:
        image, multimask = jobs[0].image, jobs[0].multimask
        batch = join([job.batch for job in jobs])
        then = jobs[0].then if len(jobs) == 1 and not self._waiting else None

        def work() -> tuple[Decoded[Any], float]:
            start = time.perf_counter()
            low_res, scores = self.model.decode(image, batch, multimask)
            seconds = time.perf_counter() - start
            return Decoded(low_res, scores, then and then(low_res, scores)), seconds

        try:
            found, seconds = await self._run(self.model.decoding, work)
        except Exception as error:  # noqa: BLE001 - each job raises it
            if len(jobs) > 1:  # one prompt must not fail the others
                for job in jobs:
                    await self._decode_together([job])
            elif not jobs[0].result.done():
                jobs[0].result.set_exception(error)
            return
        self.metrics.stages({"decoder": seconds})
        self.metrics.joined.observe(sum(job.batch.size for job in jobs))
        at = 0
        for job in jobs:
            part = slice(at, at + job.batch.size)
            at += job.batch.size
            if not job.result.done():
                job.result.set_result(Decoded(found.low_res[part], found.scores[part], found.made))

    async def search(
        self, image: EncodedImage, parameters: Parameters, progress: Callable[[int], None]
    ) -> list[Found]:
        """Find all masks of an image; one search runs at a time, beside the other lanes.

        Args:
            image: the image.
            parameters: how to search.
            progress: called in the event loop with the number of prompts of each decoder run.
        """
        loop, stopped = asyncio.get_running_loop(), False

        def decoded(count: int) -> None:
            if stopped:
                raise StoppedError
            if count:
                loop.call_soon_threadsafe(progress, count)

        async with self._searches:
            try:
                return await self._run(
                    self.model.searching,
                    self.model.search,
                    image,
                    parameters,
                    decoded,
                    self._max_pixels,
                )
            finally:
                stopped = True

    async def finish(self, work: Callable[..., T], *arguments: object) -> T:
        """Run the work that comes before or after the model in a thread."""
        return await self._run(self.model.finishing, work, *arguments)

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
