"""Work on many images at the same time, so that reading and writing overlap with inference.

A worker thread takes an image through all of its steps. Inference needs a predictor, and there are
as many predictors as streams, so the other workers read and write meanwhile. Two limits bound the
memory: the number of images worked on at the same time, and the sum of their pixels (one image
alone may exceed it).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar

from glesam_runtime.backends.base import ForwardingEngine
from glesam_runtime.errors import GlesamError, InputError
from glesam_runtime.machine import cores

if TYPE_CHECKING:
    from glesam_runtime.backends.base import Value
    from glesam_runtime.manifest import StageName
    from glesam_runtime.predictor import GleSamPredictor

MAX_PIXELS = 96 * 1024 * 1024
"""Maximum sum of the pixels of images in progress: about 1.4 GB with all intermediate data."""

_MAX_HELPERS = 8
"""Maximum number of workers beyond one per stream; the number of cores if that is lower."""

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)
Prepared = TypeVar("Prepared")
Inferred = TypeVar("Inferred")
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)


class Work(Protocol[ItemIn, Prepared, Inferred, ResultOut]):
    """The work on one image, in three steps; each may raise a GlesamError.

    An OSError or a MemoryError also fails this image only.
    """

    def pixels(self, item: ItemIn, /) -> int:
        """Return the image's number of pixels; 0 if it is unreadable, which `prepare` reports."""

    def prepare(self, item: ItemIn, /) -> Prepared:
        """Do the work that comes before the predictor runs."""

    def infer(self, predictor: GleSamPredictor, prepared: Prepared, /) -> Inferred:
        """Run the predictor."""

    def finish(self, inferred: Inferred, check: Callable[[], None], /) -> ResultOut:
        """Do the work that comes after the predictor ran; call `check` between steps."""


def run_each(
    work: Work[Item, Prepared, Inferred, Result],
    items: Iterable[Item],
    predictor: GleSamPredictor,
) -> Generator[Result | GlesamError]:
    """Work on one image after another in the calling thread.

    Yields:
        The result of each item, or the error that it failed with.
    """
    for item in items:
        outcome: Result | GlesamError
        try:
            outcome = work.finish(work.infer(predictor, work.prepare(item)), _never_stop)
        except (GlesamError, OSError, MemoryError) as error:
            outcome = _of_the_image(error)
        yield outcome


def run_overlapped(
    work: Work[Item, Prepared, Inferred, Result],
    items: Iterable[Item],
    predictor: GleSamPredictor,
    streams: int = 1,
    in_flight: int | None = None,
) -> Generator[Result | GlesamError]:
    """Work on several images at the same time, in threads.

    Exhaust the iterator or close it, because the threads run until then. An early close returns
    when each thread has reached its next step; unfinished images leave no files behind.

    Args:
        work: the work to do on each item.
        items: the items, taken one by one as earlier ones are done.
        predictor: the predictor whose graphs are used; its own image stays set.
        streams: number of images inferred at the same time; load the engine with as many streams.
        in_flight: number of images worked on at the same time; None is `default_in_flight`.

    Yields:
        The result of each item, or the error that it failed with, in the order of the items.

    Raises:
        BackendError: the engine cannot be shared between streams.
        InputError: `in_flight` is less than `streams`.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    workers = default_in_flight(streams) if in_flight is None else in_flight
    if workers < streams:
        raise InputError(
            f"{workers} images in flight: must be at least the number of streams, {streams}"
        )
    stop, budget = StopSignal(), _PixelBudget(MAX_PIXELS)
    free: SimpleQueue[GleSamPredictor] = SimpleQueue()
    for share in (predictor, *(predictor.share() for _ in range(streams - 1))):
        free.put(share.with_engine(StoppableEngine(share.engine, stop)))

    def work_on(item: Item) -> Result | GlesamError:
        try:
            stop.check()
            with budget.held(work.pixels(item)):
                stop.check()
                inferred = infer(work.prepare(item))
                stop.check()
                return work.finish(inferred, stop.check)
        except (GlesamError, OSError, MemoryError) as error:
            return _of_the_image(error)

    def infer(prepared: Prepared) -> Inferred:
        mine = free.get()
        try:
            return work.infer(mine, prepared)
        finally:
            mine.reset_image()
            free.put(mine)

    pool = ThreadPoolExecutor(workers, thread_name_prefix="glesam")
    waiting: deque[Future[Result | GlesamError]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work_on, item))
            # Queue twice as many as there are workers, so that a slow image leaves none idle.
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _of_the_image(error: GlesamError | OSError | MemoryError) -> GlesamError:
    """Return the error that one image failed with, so that the others go on."""
    if isinstance(error, GlesamError):
        return error
    message = "not enough memory; use smaller images or fewer images at the same time"
    if isinstance(error, OSError):
        message = f"{error.filename or 'system'}: {error.strerror or error}"
    made = InputError(message)
    made.__cause__ = error
    return made


def default_in_flight(streams: int) -> int:
    """Return the default for `in_flight`: one per stream, plus one per core up to 8."""
    return streams + min(_MAX_HELPERS, cores())


class Stopped(BaseException):
    """Raised in a worker to end work that nobody waits for any more.

    It is a BaseException, so that `except Exception` does not catch it.
    """


@dataclass(frozen=True)
class StopSignal:
    """A request to stop, made by one thread and seen by the others between two steps.

    The workers need it because Python delivers Ctrl-C to the main thread only.
    """

    _event: threading.Event = field(default_factory=threading.Event)

    def set(self) -> None:
        """Request that all work ends."""
        self._event.set()

    def check(self) -> None:
        """End the calling thread's work if a stop has been requested.

        Raises:
            Stopped: a stop has been requested.
        """
        if self._event.is_set():
            raise Stopped


@dataclass(frozen=True)
class StoppableEngine(ForwardingEngine):
    """An engine that checks for a stop request before each run."""

    stop: StopSignal

    def run(self, stage: StageName, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Run one graph, unless a stop has been requested.

        Raises:
            Stopped: a stop has been requested.
            BackendError: the engine failed.
        """
        self.stop.check()
        return super().run(stage, inputs)


class _PixelBudget:
    """The pixels that all workers may hold together; a larger image waits until it is alone."""

    def __init__(self, pixels: int) -> None:
        self._all = pixels
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, pixels: int) -> Iterator[None]:
        """Wait until this many pixels are free, and hold them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._all)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


def _never_stop() -> None:
    """Do nothing: Ctrl-C reaches the calling thread directly."""
