"""Many images at a time: test order, limits, failures and stops with simulated work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glesam_runtime import BackendError, GlesamError, InputError
from glesam_runtime.overlap import MAX_PIXELS, Stopped, default_in_flight, run_each, run_overlapped

SOON = 20
"""Seconds after which a test gives up waiting."""


@dataclass
class FakeEngine:
    shares: bool = True
    name: str = "fake"
    device: str = "cpu"

    def share(self) -> FakeEngine:
        if not self.shares:
            raise BackendError("one stream; leave out --streams")
        return FakeEngine()

    def run(self, stage: str, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs


@dataclass
class FakePredictor:
    engine: Any = field(default_factory=FakeEngine)
    users: int = 0
    image: object = None

    def share(self) -> FakePredictor:
        return FakePredictor(self.engine.share())

    def with_engine(self, engine: Any) -> FakePredictor:
        return FakePredictor(engine)

    def reset_image(self) -> None:
        self.image = None


class Count:
    """The number of items in progress, and its maximum."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0
        self._lock = threading.Lock()

    def add(self, amount: int) -> None:
        with self._lock:
            self.now += amount
            self.most = max(self.most, self.now)
            self.total += max(0, amount)


class Counting:
    """Work that squares numbers. Each step sleeps, longest for the items that came first."""

    def __init__(self, sizes: dict[int, int] | None = None, seconds: float = 0.002) -> None:
        self.sizes = sizes or {}
        self.seconds = seconds
        self.alive, self.inferring, self.area = Count(), Count(), Count()
        self.together: list[set[int]] = []
        self._present: set[int] = set()

    def pixels(self, item: int) -> int:
        return self.sizes.get(item, 1)

    def prepare(self, item: int) -> int:
        self.alive.add(1)
        self.area.add(self.pixels(item))
        self._present.add(item)
        self.together.append(set(self._present))
        time.sleep(self.seconds * (3 - item % 4))
        if item < 0:
            self.leave(item)
            raise InputError(f"{item}: no such file")
        return item

    def infer(self, predictor: FakePredictor, item: int) -> int:
        self.inferring.add(1)
        assert predictor.users == 0, "two images in one predictor"
        predictor.users += 1
        predictor.engine.run("encoder", {})
        time.sleep(self.seconds)
        predictor.users -= 1
        self.inferring.add(-1)
        return item

    def finish(self, item: int, check: Callable[[], None]) -> int:
        check()
        self.leave(item)
        return item * item

    def leave(self, item: int) -> None:
        self._present.discard(item)
        self.area.add(-self.pixels(item))
        self.alive.add(-1)


def squares(work: Counting, items: list[int], **options: Any) -> list[Any]:
    """Return the squares in order, with errors as text."""
    results = run_overlapped(work, items, FakePredictor(), **options)
    return [str(each) if isinstance(each, GlesamError) else each for each in results]


def expected(items: list[int]) -> list[Any]:
    return [f"{item}: no such file" if item < 0 else item * item for item in items]


@given(
    st.lists(st.integers(-3, 12), max_size=24, unique=True),
    st.integers(1, 3),
    st.integers(0, 4),
)
def test_order_failures_and_bounds(items: list[int], streams: int, helpers: int) -> None:
    work = Counting(seconds=0.0005)
    assert squares(work, items, streams=streams, in_flight=streams + helpers) == expected(items)
    assert work.inferring.most <= streams
    assert work.alive.most <= streams + helpers
    assert work.alive.now == work.inferring.now == work.area.now == 0
    assert work.alive.total == len(items)


def test_streams_and_workers_are_used() -> None:
    work = Counting(seconds=0.01)
    squares(work, list(range(24)), streams=2, in_flight=4)
    assert work.inferring.most == 2
    assert 3 <= work.alive.most <= 4


def test_the_default_holds_one_a_stream_and_one_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    assert default_in_flight(2) == 6
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(96)), raising=False)
    assert default_in_flight(1) == 9
    work = Counting(seconds=0.005)
    squares(work, list(range(30)))
    assert work.alive.most <= 9


def test_huge_images_wait_for_room() -> None:
    third, huge = MAX_PIXELS // 3, 5 * MAX_PIXELS
    sizes = dict.fromkeys(range(1, 20), third) | {7: huge, 13: MAX_PIXELS + 1}
    work = Counting(sizes)
    items = list(range(1, 20))
    assert squares(work, items, in_flight=6) == expected(items)
    assert {7} in work.together
    assert {13} in work.together
    for present in work.together:
        assert present in ({7}, {13}) or len(present) <= 3
    assert any(len(present) == 3 for present in work.together)


def test_items_are_taken_as_they_are_needed() -> None:
    taken = 0

    def count() -> Iterator[int]:
        nonlocal taken
        for item in range(1000):
            taken += 1
            yield item

    with closing(run_overlapped(Counting(), count(), FakePredictor(), in_flight=3)) as results:
        assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
        assert taken <= 5 + 2 * 3


def test_a_fault_ends_the_run_in_its_turn() -> None:
    class Faulty(Counting):
        def infer(self, predictor: FakePredictor, item: int) -> int:
            if item == 5:
                raise ZeroDivisionError
            return super().infer(predictor, item)

    work, seen = Faulty(), []
    results = run_overlapped(work, range(1000), FakePredictor(), in_flight=3)
    with pytest.raises(ZeroDivisionError):
        seen.extend(results)
    assert seen == [0, 1, 4, 9, 16]
    assert work.alive.total < 50
    assert not [each for each in threading.enumerate() if each.name.startswith("glesam")]


@pytest.mark.parametrize("step", ["engine", "finish"])
def test_closing_stops_at_the_next_step(step: str) -> None:
    """Check that endless work stops at its next engine run or its next mask."""
    first_done, started = threading.Event(), threading.Event()
    ended: list[Stopped] = []
    hours = time.monotonic() + SOON

    class Endless(Counting):
        def prepare(self, item: int) -> int:
            if item:
                first_done.wait(SOON)
            return item

        def infer(self, predictor: FakePredictor, item: int) -> int:
            while item and step == "engine" and time.monotonic() < hours:
                started.set()
                try:
                    predictor.engine.run("decoder", {})
                except Stopped as stopped:
                    ended.append(stopped)
                    raise
                time.sleep(0.001)
            return item

        def finish(self, item: int, check: Callable[[], None]) -> int:
            first_done.set()
            while item and time.monotonic() < hours:
                started.set()
                check()
                time.sleep(0.001)
            return item

    results = run_overlapped(Endless(), range(50), FakePredictor(), in_flight=3)
    assert next(results) == 0
    assert started.wait(SOON)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < SOON / 2
    assert bool(ended) is (step == "engine")
    assert not [each for each in threading.enumerate() if each.name.startswith("glesam")]


def test_an_engine_of_one_stream_says_so() -> None:
    predictor = FakePredictor(FakeEngine(shares=False))
    with pytest.raises(BackendError, match="leave out --streams"):
        next(run_overlapped(Counting(), [1, 2], predictor, streams=2))
    assert list(run_overlapped(Counting(), [1, 2], predictor)) == [1, 4]


def test_fewer_in_flight_than_streams() -> None:
    with pytest.raises(InputError, match=r"2 images in flight: must be at least .* streams, 3"):
        next(run_overlapped(Counting(), [1], FakePredictor(), streams=3, in_flight=2))


def test_one_at_a_time_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    work = Counting()
    results = run_each(work, [3, -1, 2], FakePredictor())
    assert [str(each) for each in results] == ["9", "-1: no such file", "4"]
    assert work.alive.most == 1
