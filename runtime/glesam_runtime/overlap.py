"""Many images: while one is inferred, the next are read and the last ones are written.

A worker thread takes an image through all of its steps. Inference needs one of as many predictors
as there are streams, so the workers beyond those read and write meanwhile. Two bounds hold however
many images there are: so many of them are worked on at a time, and so many pixels, unless one
image alone has more.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, TypeVar

from glesam_runtime.errors import GlesamError, InputError
from glesam_runtime.interruption import Stop, StoppableEngine

if TYPE_CHECKING:
    from glesam_runtime.predictor import GleSamPredictor

MAX_PIXELS = 96 * 1024 * 1024
"""Of the images worked on at a time: about 1.4 GB with what is made of them on the way."""

_MOST_HELPERS = 8
"""Workers beside the streams: as many as there are cores, but no more than this."""

Item = TypeVar("Item")
ItemIn = TypeVar("ItemIn", contravariant=True)
Prepared = TypeVar("Prepared")
Inferred = TypeVar("Inferred")
Result = TypeVar("Result")
ResultOut = TypeVar("ResultOut", covariant=True)


class Work(Protocol[ItemIn, Prepared, Inferred, ResultOut]):
    """What is done with an image, in three steps; any of them may raise a GlesamError."""

    def pixels(self, item: ItemIn, /) -> int:
        """How many the image has; 0 where it cannot be read, which `prepare` then says."""

    def prepare(self, item: ItemIn, /) -> Prepared:
        """All that can be done before a predictor is free."""

    def infer(self, predictor: GleSamPredictor, prepared: Prepared, /) -> Inferred:
        """What needs the predictor."""

    def finish(self, inferred: Inferred, check: Callable[[], None], /) -> ResultOut:
        """All that can be done when the predictor works on the next; call `check` now and then."""


def run_each(
    work: Work[Item, Prepared, Inferred, Result],
    items: Iterable[Item],
    predictor: GleSamPredictor,
) -> Generator[Result | GlesamError]:
    """Work on one image after the other, in this thread."""
    for item in items:
        try:
            yield work.finish(work.infer(predictor, work.prepare(item)), _go_on)
        except GlesamError as error:
            yield error


def run_overlapped(
    work: Work[Item, Prepared, Inferred, Result],
    items: Iterable[Item],
    predictor: GleSamPredictor,
    streams: int = 1,
    in_flight: int | None = None,
) -> Generator[Result | GlesamError]:
    """Work on several images at a time, in threads.

    Close the iterator, or use it up: until then threads go on. Closed early, it returns when each
    has come to its next step; what they had not finished leaves no trace.

    Args:
        work: what to do with each.
        items: taken one by one as others are done.
        predictor: its graphs are used, the image it has stays set.
        streams: how many images are inferred at a time; the engine was loaded for as many.
        in_flight: how many are worked on at a time; None is `default_in_flight`.

    Yields:
        In the order of the items, each one's result or the error that it failed with.

    Raises:
        BackendError: the engine runs one stream only.
        InputError: fewer in flight than there are streams.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    workers = default_in_flight(streams) if in_flight is None else in_flight
    if workers < streams:
        raise InputError(f"{workers} images in flight do not fill {streams} streams")
    stop, room = Stop(), _Room(MAX_PIXELS)
    free: SimpleQueue[GleSamPredictor] = SimpleQueue()
    for share in (predictor, *(predictor.share() for _ in range(streams - 1))):
        free.put(share.with_engine(StoppableEngine(share.engine, stop)))

    def work_on(item: Item) -> Result | GlesamError:
        try:
            stop.check()
            with room.held(work.pixels(item)):
                stop.check()
                inferred = infer(work.prepare(item))
                stop.check()
                return work.finish(inferred, stop.check)
        except GlesamError as error:
            return error

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
            # More than are worked on, so that one slow image does not leave the others idle.
            if len(waiting) == 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.ask()
        pool.shutdown(cancel_futures=True)


def default_in_flight(streams: int) -> int:
    """One image a stream, and one a core that is read or written meanwhile."""
    return streams + min(_MOST_HELPERS, _cores())


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Room:
    """Pixels for everyone; who asks for more than there are in all waits to be alone."""

    def __init__(self, pixels: int) -> None:
        self._all = pixels
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def held(self, pixels: int) -> Iterator[None]:
        """Wait until so many are free, and hold them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._all)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


def _go_on() -> None:
    """Nothing to stop for: a Ctrl-C reaches this thread by itself."""
